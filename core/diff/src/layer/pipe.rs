//! Threads in a row that hand each other pieces of a stream. The pieces' memory goes around in a circle.

use std::{
    io::{self, BufRead, Read},
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread::{Builder, Scope, ScopedJoinHandle},
};

use kevel_model::Hasher;

/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// Pieces waiting between two threads. With the ones being filled and emptied this makes about 2 MiB for a layer.
const WAITING: usize = 3;

type Piece = io::Result<Vec<u8>>;

/// A stream that another thread produces. When it is dropped the producer stops.
pub(super) struct Pieces {
    filled: Receiver<Piece>,
    empty: Sender<Vec<u8>>,
    piece: Vec<u8>,
    taken: usize,
}

/// A thread that hashes; `None` if it stopped before the end of the stream.
pub(super) type Hash<'s> = ScopedJoinHandle<'s, Option<Hasher>>;

/// Reads `source` in a thread, and hashes it there if a hasher is given.
pub(super) fn read<'s, 'e: 's>(
    scope: &'s Scope<'s, 'e>,
    mut source: impl Read + Send + 's,
    mut hasher: Option<Hasher>,
) -> io::Result<(Pieces, Hash<'s>)> {
    let (send, filled) = sync_channel(WAITING);
    let (empty, recycled) = channel::<Vec<u8>>();
    let thread = Builder::new().name("layer-read".into()).spawn_scoped(scope, move || {
        loop {
            let mut piece = recycled.try_recv().unwrap_or_default();
            piece.resize(PIECE, 0);
            match fill(&mut source, &mut piece) {
                Ok(0) => return hasher,
                Ok(length) => piece.truncate(length),
                Err(error) => {
                    let _ = send.send(Err(error)); // nobody listens: nobody needs to know
                    return None;
                }
            }
            if let Some(hasher) = &mut hasher {
                hasher.update(&piece);
            }
            if send.send(Ok(piece)).is_err() {
                return None;
            }
        }
    })?;
    Ok((Pieces { filled, empty, piece: Vec::new(), taken: 0 }, thread))
}

/// Hashes what comes out of `pieces` in a thread and hands it on.
pub(super) fn hash<'s, 'e: 's>(
    scope: &'s Scope<'s, 'e>,
    pieces: Pieces,
    mut hasher: Hasher,
) -> io::Result<(Pieces, Hash<'s>)> {
    let (send, filled): (SyncSender<Piece>, _) = sync_channel(WAITING);
    let Pieces { filled: incoming, empty, .. } = pieces;
    let thread = Builder::new().name("layer-hash".into()).spawn_scoped(scope, move || {
        for piece in incoming {
            if let Ok(bytes) = &piece {
                hasher.update(bytes);
            }
            let failed = piece.is_err();
            if send.send(piece).is_err() || failed {
                return None;
            }
        }
        Some(hasher)
    })?;
    Ok((Pieces { filled, empty, piece: Vec::new(), taken: 0 }, thread))
}

/// Fills `buffer` as far as the source reaches.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.piece.len() {
            self.taken = 0;
            let done = std::mem::take(&mut self.piece);
            if done.capacity() > 0 {
                let _ = self.empty.send(done); // the producer is done: it needs no more memory
            }
            if let Ok(piece) = self.filled.recv() {
                self.piece = piece?;
            }
        }
        Ok(&self.piece[self.taken..])
    }

    fn consume(&mut self, count: usize) {
        self.taken = (self.taken + count).min(self.piece.len());
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}
