//! How much may be sent: a window for each stream and one for all together, 64 KiB until the peer says otherwise.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::frame::{INITIAL_WINDOW_SIZE, Setting};

const INITIAL: i64 = 64 << 10;
/// No window of a correct peer grows beyond this.
const LARGEST: i64 = i32::MAX as i64;

/// The windows of a connection.
#[derive(Debug)]
pub(super) struct Windows {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// Whether the peer has shown that it keeps windows.
    kept: bool,
    initial: i64,
    all: i64,
    streams: HashMap<u32, i64>,
}

impl Windows {
    pub(super) fn new() -> Self {
        let state = State { kept: false, initial: INITIAL, all: INITIAL, streams: HashMap::new() };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// A stream begins.
    pub(super) fn open(&self, stream: u32) {
        let mut state = self.lock();
        let initial = state.initial;
        state.streams.insert(stream, initial);
    }

    /// A stream has ended; nobody waits for it any more.
    pub(super) fn close(&self, stream: u32) {
        self.lock().streams.remove(&stream);
        self.changed.notify_waiters();
    }

    /// Waits until some of `wanted` bytes may be sent and answers how many; all of them for a stream that has ended.
    pub(super) async fn take(&self, stream: u32, wanted: usize) -> usize {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(count) = self.lock().take(stream, wanted) {
                return count;
            }
            changed.await;
        }
    }

    /// The peer lets more be sent. False if that is more than a window can be.
    pub(super) fn grow(&self, stream: u32, delta: u32) -> bool {
        let mut state = self.lock();
        state.kept = true;
        let window = if stream == 0 { Some(&mut state.all) } else { state.streams.get_mut(&stream) };
        let fits = window.is_none_or(|window| {
            *window += i64::from(delta);
            *window <= LARGEST
        });
        drop(state);
        self.changed.notify_waiters();
        fits
    }

    /// The peer's settings.
    pub(super) fn set(&self, settings: &[Setting]) {
        let Some(setting) = settings.iter().find(|setting| setting.id == INITIAL_WINDOW_SIZE) else { return };
        let mut state = self.lock();
        let initial = i64::from(setting.value).min(LARGEST);
        let change = initial - state.initial;
        (state.kept, state.initial) = (true, initial);
        state.streams.values_mut().for_each(|window| *window += change);
        drop(state);
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, stream: u32, wanted: usize) -> Option<usize> {
        let Some(window) = self.streams.get_mut(&stream) else { return Some(wanted) };
        let count = if self.kept { usize::try_from((*window).min(self.all)).unwrap_or(0).min(wanted) } else { wanted };
        let taken = i64::try_from(count).unwrap_or(i64::MAX);
        // A peer that keeps no windows must not drive them to where no growth brings them back from.
        *window = window.saturating_sub(taken);
        self.all = self.all.saturating_sub(taken);
        (count > 0 || wanted == 0).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn taken(windows: &Windows, stream: u32, wanted: usize) -> Option<usize> {
        windows.take(stream, wanted).now_or_never()
    }

    #[test]
    fn windows_count_once_the_peer_keeps_them() {
        let windows = Windows::new();
        windows.open(1);
        assert_eq!(taken(&windows, 1, 70_000), Some(70_000));
        assert!(windows.grow(1, 10_000));
        // 65536 - 70000 of the connection's own window: nothing is left of that one.
        assert_eq!(taken(&windows, 1, 10), None);
        assert!(windows.grow(0, 5000));
        assert_eq!(taken(&windows, 1, 1000), Some(536));
        assert_eq!(taken(&windows, 1, 1000), None);
        assert!(windows.grow(0, 100_000));
        windows.open(3);
        assert_eq!(taken(&windows, 3, 100_000), Some(65_536));
        let half = Setting { flags: 0, id: INITIAL_WINDOW_SIZE, value: 1 << 15 };
        windows.set(&[half]);
        assert!(windows.grow(3, 1 << 15));
        assert_eq!(taken(&windows, 3, 1), None, "the smaller first window counts for open streams too");
        windows.close(3);
        assert_eq!(taken(&windows, 3, 9), Some(9), "a stream that has ended holds nobody up");
        assert!(!windows.grow(0, u32::MAX >> 1));
    }

    #[tokio::test]
    async fn a_waiting_sender_goes_on() {
        let windows = std::sync::Arc::new(Windows::new());
        windows.open(1);
        windows.grow(1, 0);
        assert_eq!(windows.take(1, 1 << 20).await, 1 << 16);
        let waiting = tokio::spawn({
            let windows = windows.clone();
            async move { windows.take(1, 10).await }
        });
        windows.grow(0, 100);
        windows.grow(1, 4);
        assert_eq!(waiting.await.unwrap(), 4);
    }
}
