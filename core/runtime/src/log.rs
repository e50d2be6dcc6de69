//! What a shim logs: lines from the FIFO `log` in its bundle, passed on to the daemon's own log.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    io::Errno,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::unix::pipe,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Error, Result};

/// The longest line, in bytes; longer ones are cut into several.
const MAX_LINE: usize = 4096;

/// Passes on what the shim of `id` writes to `<bundle>/log`, until the guard is dropped. The FIFO is made if it is not
/// there. It is opened for writing too, so that it neither blocks nor ends while the shim starts or restarts.
pub(crate) fn follow(bundle: &Path, id: &str) -> Result<DropGuard> {
    let path = bundle.join("log");
    let receiver = open(&path).map_err(|source| Error::Bundle { doing: "opening log", path, source })?;
    let token = CancellationToken::new();
    tokio::spawn(copy(receiver, id.to_owned(), token.clone()));
    Ok(token.drop_guard())
}

fn open(path: &PathBuf) -> io::Result<pipe::Receiver> {
    match mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o700), 0) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    pipe::OpenOptions::new().read_write(true).open_receiver(path)
}

async fn copy(receiver: pipe::Receiver, id: String, end: CancellationToken) {
    let mut reader = BufReader::with_capacity(MAX_LINE, receiver);
    let mut line = Vec::new();
    loop {
        let read = tokio::select! {
            () = end.cancelled() => return,
            read = reader.fill_buf() => read,
        };
        let Ok(chunk @ [_, ..]) = read else { return };
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(chunk.len(), |end| end + 1);
        line.extend_from_slice(&chunk[..taken]);
        reader.consume(taken);
        if end.is_some() || line.len() >= MAX_LINE {
            let text = String::from_utf8_lossy(line.trim_ascii());
            if !text.is_empty() {
                tracing::info!(target: "shim", shim = id, "{text}");
            }
            line.clear();
        }
    }
}
