//! What a command printed, for ExecSync: a bounded part is kept, everything is read.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// What ExecSync keeps of each stream. More would not fit into an answer.
pub const CAPTURE_LIMIT: usize = 16 << 20;

/// One stream of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// The first bytes.
    pub data: Vec<u8>,
    /// How many more came.
    pub dropped: u64,
}

/// Reads a stream to its end and keeps the first `limit` bytes, so that a command that prints without end does not
/// wait for somebody to read.
pub async fn capture(mut reader: impl AsyncRead + Unpin, limit: usize) -> io::Result<Captured> {
    let mut captured = Captured::default();
    let mut buffer = vec![0; 32 << 10];
    loop {
        let count = reader.read(&mut buffer).await?;
        if count == 0 {
            return Ok(captured);
        }
        let kept = count.min(limit - captured.data.len());
        captured.data.extend_from_slice(&buffer[..kept]);
        captured.dropped += u64::try_from(count - kept).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_limit_is_kept_and_the_rest_is_read() {
        let cases = [(0, 5, 0, 0), (5, 5, 5, 0), (6, 5, 5, 1), (100_000, 70_000, 70_000, 30_000), (3, 0, 0, 3)];
        for (length, limit, kept, dropped) in cases {
            let input = vec![7; length];
            let captured = capture(input.as_slice(), limit).await.unwrap();
            assert_eq!(captured, Captured { data: vec![7; kept], dropped }, "{length} bytes, limit {limit}");
        }
    }
}
