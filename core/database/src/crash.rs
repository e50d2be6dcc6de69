//! A disk that forgets what was not synced: the storage under crash tests.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redb::StorageBackend;

/// A disk in memory with a volatile write cache. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// What programs see.
    seen: Vec<u8>,
    /// What a power loss leaves for sure.
    synced: Vec<u8>,
    /// Writes since the last sync; a power loss may leave any of them.
    cached: Vec<(u64, Vec<u8>)>,
    /// Writes and syncs that still succeed; none when power does not fail.
    remaining: Option<u64>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("bytes", &self.seen.len()).field("cached", &self.cached.len()).finish()
    }
}

impl Disk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has power fail after so many more writes and syncs: all that follow fail.
    pub fn fail_after(&self, operations: u64) {
        self.state().remaining = Some(operations);
    }

    /// The disk after a power loss at this moment: what was synced, and of the writes since then those for which
    /// `survives` (told their number) answers true. Sizes that were set are kept, as file systems may.
    pub fn after_power_loss(&self, mut survives: impl FnMut(usize) -> bool) -> Self {
        let state = self.state();
        let mut left = state.synced.clone();
        left.resize(state.seen.len().max(left.len()), 0);
        for (number, (offset, data)) in state.cached.iter().enumerate() {
            let offset = usize::try_from(*offset).unwrap_or(usize::MAX);
            if let Some(place) = left.get_mut(offset..offset.saturating_add(data.len())).filter(|_| survives(number)) {
                place.copy_from_slice(data);
            }
        }
        Self(Arc::new(Mutex::new(State { seen: left.clone(), synced: left, cached: Vec::new(), remaining: None })))
    }
}

impl State {
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.remaining {
            Some(0) => Err(io::Error::other("no power")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn place(&mut self, offset: u64, length: usize) -> io::Result<&mut [u8]> {
        let past = || io::Error::new(io::ErrorKind::UnexpectedEof, "past the end of the disk");
        let offset = usize::try_from(offset).map_err(|_| past())?;
        self.seen.get_mut(offset..offset.saturating_add(length)).ok_or_else(past)
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.copy_from_slice(self.state().place(offset, out.len())?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.spend()?;
        state.seen.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.spend()?;
        state.synced = state.seen.clone();
        state.cached.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.spend()?;
        state.place(offset, data.len())?.copy_from_slice(data);
        state.cached.push((offset, data.to_vec()));
        Ok(())
    }
}
