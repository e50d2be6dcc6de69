//! Archives over streams: `Data` messages one way, `WindowUpdate` the other. Who sends may send as many bytes as the
//! receiver granted; nothing is granted at the beginning.

use bytes::Bytes;
use kevel_client::convert::{any_read, any_wire};
use kevel_contract::{
    stream::Stream,
    transfer::{Archive, ArchiveSink},
};
use kevel_model::{Any, Error, Result};
use kevel_proto::{
    any,
    containerd::types::transfer::{Data, WindowUpdate},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    task::JoinHandle,
};

/// The largest message sent, in bytes.
const MAX_DATA: usize = 32 << 10;
/// How much a sender is granted at a time, in bytes.
const WINDOW: i32 = 64 << 10;

/// An archive that a client sends.
pub(super) fn source(stream: Stream) -> Archive {
    let (reader, writer) = duplex(WINDOW as usize);
    tokio::spawn(async move {
        if let Err(error) = receive(stream, writer).await {
            tracing::debug!(error = error.chain(), "archive broke off");
        }
    });
    Box::pin(reader)
}

/// An archive for a client, and how sending it ended; the end comes after the sink is dropped.
pub(super) fn sink(stream: Stream) -> (ArchiveSink, JoinHandle<Result<()>>) {
    let (writer, reader) = duplex(WINDOW as usize);
    (Box::pin(writer), tokio::spawn(send(stream, reader)))
}

fn gone() -> Error {
    Error::unavailable("the other end of the archive's stream has gone")
}

async fn receive(mut stream: Stream, mut archive: DuplexStream) -> Result<()> {
    let mut window = 0_i64;
    loop {
        if window < i64::from(WINDOW) {
            let grant = any_read(any::pack(&WindowUpdate { update: WINDOW }));
            stream.tx.send(grant).await.map_err(|_| gone())?;
            window += i64::from(WINDOW);
        }
        let Some(message) = stream.rx.recv().await else { return Ok(()) };
        let data: Data = any::unpack_owned(any_wire(message))
            .map_err(|cause| Error::invalid_argument("archive's stream").with_source(cause))?;
        let length = i64::try_from(data.data.len()).unwrap_or(i64::MAX);
        if length > window {
            return Err(Error::resource_exhausted("archive's stream: more was sent than granted"));
        }
        window -= length;
        archive.write_all(&data.data).await.map_err(|cause| Error::io("passing the archive on", cause))?;
    }
}

async fn send(mut stream: Stream, mut archive: DuplexStream) -> Result<()> {
    let mut granted = 0_usize;
    let mut buffer = vec![0; MAX_DATA];
    loop {
        while granted == 0 {
            granted = grant(stream.rx.recv().await.ok_or_else(gone)?)?;
        }
        let limit = granted.min(MAX_DATA);
        let length = archive.read(&mut buffer[..limit]).await;
        let length = length.map_err(|cause| Error::io("reading the archive", cause))?;
        if length == 0 {
            return Ok(());
        }
        granted -= length;
        let data = any_read(any::pack(&Data { data: Bytes::copy_from_slice(&buffer[..length]) }));
        stream.tx.send(data).await.map_err(|_| gone())?;
        while let Ok(message) = stream.rx.try_recv() {
            granted = granted.saturating_add(grant(message)?);
        }
    }
}

fn grant(message: Any) -> Result<usize> {
    let update: WindowUpdate = any::unpack(&any_wire(message))
        .map_err(|cause| Error::invalid_argument("archive's stream").with_source(cause))?;
    usize::try_from(update.update).map_err(|_| Error::invalid_argument("archive's stream: negative window update"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn archives_pass_through_both_ways_within_the_window() {
        let data: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
        let (here, there) = Stream::pair(2);
        let mut source = source(there);
        let (mut sink, sent) = sink(here);
        let writing = async {
            sink.write_all(&data).await.unwrap();
            drop(sink);
            sent.await.unwrap().unwrap();
        };
        let mut got = Vec::new();
        let (read, ()) = tokio::join!(source.read_to_end(&mut got), writing);
        read.unwrap();
        assert!(got == data);
    }

    #[tokio::test]
    async fn a_receiver_that_goes_ends_the_sending() {
        let (here, there) = Stream::pair(2);
        let (mut sink, sent) = sink(here);
        drop(there);
        let _ = sink.write_all(&[0; 10]).await;
        drop(sink);
        assert_eq!(sent.await.unwrap().unwrap_err().code(), kevel_model::Code::Unavailable);
    }
}
