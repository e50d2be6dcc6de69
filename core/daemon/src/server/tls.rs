//! TLS for the gRPC listener on TCP: its certificate, whose clients it takes, and connections once they are secured.

use std::{
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::tcp::Config;

/// Certificates and keys are a few KiB.
const MAX_FILE: u64 = 1 << 20;
/// The longest that a client may take to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Clients that may be about to say so at once.
const HANDSHAKES: usize = 128;

/// Reads the files of a table.
pub(super) fn acceptor(config: &Config) -> anyhow::Result<TlsAcceptor> {
    let chain = certificates("tls_cert", &config.tls_cert)?;
    // The cause is not told: it could quote the key.
    let key = PrivateKeyDer::from_pem_slice(&read("tls_key", &config.tls_key)?);
    let Ok(key) = key else { bail!("tls_key: no private key in {}", config.tls_key) };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match config.tls_ca.is_empty() {
        true => builder.with_no_client_auth(),
        false => {
            let mut authorities = RootCertStore::empty();
            for authority in certificates("tls_ca", &config.tls_ca)? {
                authorities.add(authority).context("tls_ca")?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider).build();
            builder.with_client_cert_verifier(verifier.context("tls_ca")?)
        }
    };
    let mut server = builder.with_single_cert(chain, key).context("tls_cert and tls_key are of no use")?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

fn certificates(key: &str, file: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(key, file)?).collect();
    match found {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => bail!("{key}: no certificate in {file}"),
    }
}

fn read(key: &str, file: &str) -> anyhow::Result<Vec<u8>> {
    let doing = || format!("{key}: reading {file}");
    if !Path::new(file).is_absolute() {
        bail!("{key}: {file} is not an absolute path");
    }
    if std::fs::metadata(file).with_context(doing)?.len() > MAX_FILE {
        bail!("{key}: {file} is larger than {MAX_FILE} bytes");
    }
    std::fs::read(file).with_context(doing)
}

/// A connection whose client has shown that it may come.
pub(super) struct Secured(TlsStream<TcpStream>);

impl Secured {
    /// Connections as they are secured. One that dawdles or fails holds up no other.
    pub(super) fn accept(
        listener: TcpListener,
        acceptor: TlsAcceptor,
        stop: CancellationToken,
    ) -> ReceiverStream<io::Result<Self>> {
        let (secured, connections) = mpsc::channel(16);
        let slots = Arc::new(Semaphore::new(HANDSHAKES));
        let accept = async move {
            // The semaphore is never closed.
            while let Ok(slot) = slots.clone().acquire_owned().await {
                let stream = match listener.accept().await {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "accepting a connection on TCP");
                        tokio::task::yield_now().await;
                        continue;
                    }
                };
                let (acceptor, secured) = (acceptor.clone(), secured.clone());
                tokio::spawn(async move {
                    let _slot = slot;
                    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => drop(secured.send(Ok(Self(stream))).await),
                        Ok(Err(error)) => tracing::debug!(%error, "a client on TCP did not secure its connection"),
                        Err(_) => tracing::debug!("a client on TCP took too long to secure its connection"),
                    }
                });
            }
        };
        tokio::spawn(async move { stop.run_until_cancelled(accept).await });
        ReceiverStream::new(connections)
    }
}

impl Connected for Secured {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Secured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
