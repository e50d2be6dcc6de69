//! Addresses of shims, and connecting to them. What is said over the connection is not here.

use std::{fmt, io, path::PathBuf, str::FromStr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use crate::{Error, Result};

/// The longest answer to `CONNECT`, in bytes.
const MAX_GREETING: usize = 64;
/// How often, and how long apart, the socket of a dead shim is looked at: of a process that is ending, the kernel may close the
/// connection that told us before it closes the listener.
const DEAD_LOOKS: u32 = 10;
const DEAD_PAUSE: Duration = Duration::from_millis(50);

/// Where a shim listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `unix://PATH`.
    Unix(PathBuf),
    /// A name without a scheme: an abstract Unix socket.
    Abstract(String),
    /// `hvsock://PATH:PORT`: a Unix socket of a virtual machine monitor that leads to a port of the guest.
    Hybrid(PathBuf, u32),
    /// `vsock://CID:PORT`.
    Vsock(u32, u32),
}

impl FromStr for Address {
    type Err = Error;

    /// Reads an address. A protocol before it (`ttrpc+unix://…`) is left out of account.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |reason| Error::Address { address: text.into(), reason };
        let plain = text.strip_prefix("ttrpc+").or_else(|| text.strip_prefix("grpc+")).unwrap_or(text);
        if plain.contains('\0') {
            return Err(bad("contains a zero byte"));
        }
        let Some((scheme, rest)) = plain.split_once("://") else {
            return if plain.is_empty() { Err(bad("is empty")) } else { Ok(Self::Abstract(plain.into())) };
        };
        let port = || {
            let (place, port) = rest.rsplit_once(':').ok_or_else(|| bad("lacks a port"))?;
            Ok((place, port.parse().map_err(|_| bad("has a port that is no number"))?))
        };
        match scheme {
            "unix" if rest.is_empty() => Err(bad("lacks a path")),
            "unix" => Ok(Self::Unix(rest.into())),
            "hvsock" => port().map(|(path, port)| Self::Hybrid(path.into(), port)),
            "vsock" => {
                let (cid, port) = port()?;
                Ok(Self::Vsock(cid.parse().map_err(|_| bad("has a context id that is no number"))?, port))
            }
            _ => Err(bad("has an unknown scheme")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Abstract(name) => f.write_str(name),
            Self::Hybrid(path, port) => write!(f, "hvsock://{}:{port}", path.display()),
            Self::Vsock(cid, port) => write!(f, "vsock://{cid}:{port}"),
        }
    }
}

impl Address {
    /// Connects, within `limit`.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`], or [`Error::Unsupported`] for vsock, which this host's side does not speak yet.
    pub(crate) async fn connect(&self, limit: Duration) -> Result<UnixStream> {
        let failed = |source| Error::Connect { address: self.to_string(), source };
        match tokio::time::timeout(limit, self.stream()).await {
            Ok(Ok(Some(stream))) => Ok(stream),
            Ok(Ok(None)) => {
                let what = "vsock is not offered; use hvsock or unix".to_owned();
                Err(Error::Unsupported { address: self.to_string(), what })
            }
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Whether there is a socket that nobody listens at.
    pub(crate) async fn is_dead(&self) -> bool {
        let Self::Unix(path) = self else { return false };
        UnixStream::connect(path).await.is_err_and(|error| refused(&error))
    }

    /// Removes the socket of a shim that died, unless somebody listens there. The next shim of that name would have to.
    pub(crate) async fn remove_dead(&self) {
        let Self::Unix(path) = self else { return };
        for _ in 0..DEAD_LOOKS {
            match UnixStream::connect(path).await {
                Err(error) if refused(&error) => {
                    let _ = tokio::fs::remove_file(path).await; // no harm if it stays
                    return;
                }
                Err(_) => return,
                Ok(_) => tokio::time::sleep(DEAD_PAUSE).await,
            }
        }
    }

    async fn stream(&self) -> io::Result<Option<UnixStream>> {
        match self {
            Self::Unix(path) => UnixStream::connect(path).await.map(Some),
            Self::Abstract(name) => UnixStream::connect(format!("\0{name}")).await.map(Some),
            Self::Hybrid(path, port) => {
                let mut stream = UnixStream::connect(path).await?;
                stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
                greeted(&mut stream).await?;
                Ok(Some(stream))
            }
            Self::Vsock(..) => Ok(None),
        }
    }
}

/// Reads the line `OK …`, byte by byte so that nothing after it is taken.
async fn greeted(stream: &mut UnixStream) -> io::Result<()> {
    let mut line = Vec::new();
    while line.len() < MAX_GREETING {
        match stream.read_u8().await? {
            b'\n' if line.starts_with(b"OK") => return Ok(()),
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    Err(io::Error::other(format!("the guest's port was refused: {:?}", String::from_utf8_lossy(&line))))
}

/// Whether a socket is there, and nobody listens at it.
fn refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, want) in [
            ("unix:///run/s/abc", Address::Unix("/run/s/abc".into())),
            ("ttrpc+unix:///run/s/abc", Address::Unix("/run/s/abc".into())),
            ("/containerd-shim/abc.sock", Address::Abstract("/containerd-shim/abc.sock".into())),
            ("hvsock:///run/vm.sock:1024", Address::Hybrid("/run/vm.sock".into(), 1024)),
            ("grpc+vsock://3:1024", Address::Vsock(3, 1024)),
        ] {
            assert_eq!(text.parse::<Address>().unwrap(), want, "{text}");
        }
        for text in ["", "unix://", "http://x", "vsock://x:1", "vsock://1", "hvsock:///a:b", "unix:///a\0b"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn hybrid_sockets_ask_for_their_port() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut line = [0; 11];
            stream.read_exact(&mut line).await.unwrap();
            stream.write_all(b"OK 77\n").await.unwrap();
            (line, stream)
        };
        let address = Address::Hybrid(path, 99);
        let (client, (line, _stream)) = tokio::join!(address.connect(Duration::from_secs(5)), serve);
        assert_eq!(&line, b"CONNECT 99\n");
        client.unwrap();
    }

    #[tokio::test]
    async fn vsock_says_that_it_is_not_offered() {
        let error = Address::Vsock(3, 5).connect(Duration::from_secs(1)).await.err().unwrap();
        assert_eq!(error.code(), kevel_model::Code::Unimplemented);
    }
}
