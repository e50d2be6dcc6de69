//! TLS as `hosts.toml` configures it, against a server whose authority only the tests know: the keys in `tls/` were made for
//! these tests, prove nothing to anybody else, and are good for a hundred years.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use kevel_model::{Descriptor, Digest, Reference, media_type::OCI_LAYER};
use kevel_registry::{Error, Options, Registry, Settings};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

const DATA: &[u8] = b"over tls";

fn pem(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

fn certificate(name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(pem(name)).unwrap()
}

/// A server that answers everything with the blob; it may ask for a certificate of the client's.
async fn server(asks_client: bool) -> (u16, JoinHandle<()>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = if asks_client {
        let mut roots = RootCertStore::empty();
        roots.add(certificate("ca.pem")).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::from_pem_file(pem("server.key")).unwrap();
    let config = builder.with_single_cert(vec![certificate("server.pem")], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(socket) = acceptor.accept(socket).await else { return };
                let service = hyper::service::service_fn(|_| async {
                    Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from_static(DATA))))
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    (port, task)
}

/// Fetches the blob for `registry.test` with this configuration.
async fn fetch(hosts: &str) -> Result<Option<Bytes>, Error> {
    let directory = tempfile::tempdir().unwrap();
    let host = directory.path().join("registry.test");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("hosts.toml"), hosts).unwrap();
    let settings = Settings { retries: 0, connect_timeout: Duration::from_secs(5), ..Settings::default() };
    let options = Options { config_paths: vec![directory.path().to_owned()], ..Options::default() };
    let reference = Reference::complete("registry.test/a:b").unwrap();
    let session = Registry::new(settings).session(&reference, options).await?;
    let blob = Descriptor::new(OCI_LAYER, Digest::sha256(DATA), DATA.len() as u64);
    session.blob(&blob, 0).await?.next().await
}

#[tokio::test]
async fn the_configured_authority_is_trusted_and_no_other() {
    let (port, _task) = server(false).await;
    let ca = pem("ca.pem");
    let https = format!("server = \"https://127.0.0.1:{port}\"\n");
    assert_eq!(fetch(&format!("{https}ca = {ca:?}")).await.unwrap().unwrap(), DATA);
    assert_eq!(fetch(&format!("{https}skip_verify = true")).await.unwrap().unwrap(), DATA);
    let error = fetch(&https).await.unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
    // A certificate for another name than the one that was asked for.
    let error = fetch(&format!("server = \"https://127.0.0.2:{port}\"\nca = {ca:?}")).await.unwrap_err().to_string();
    assert!(error.contains("127.0.0.2"), "{error}");
    // TLS first where a file says http and how to do TLS.
    assert_eq!(fetch(&format!("server = \"http://127.0.0.1:{port}\"\nca = {ca:?}")).await.unwrap().unwrap(), DATA);
}

#[tokio::test]
async fn a_registry_on_this_machine_needs_no_configuration() {
    let (port, _task) = server(false).await;
    let reference = Reference::complete(&format!("127.0.0.1:{port}/a:b")).unwrap();
    let options = Options { config_paths: vec!["/nonexistent".into()], ..Options::default() };
    let session = Registry::new(Settings::default()).session(&reference, options).await.unwrap();
    let blob = Descriptor::new(OCI_LAYER, Digest::sha256(DATA), DATA.len() as u64);
    assert_eq!(session.blob(&blob, 0).await.unwrap().next().await.unwrap().unwrap(), DATA);
}

#[tokio::test]
async fn client_certificates_are_shown() {
    let (port, _task) = server(true).await;
    let base = format!("server = \"https://127.0.0.1:{port}\"\nca = {:?}\n", pem("ca.pem"));
    let pair = format!("{base}client = [[{:?}, {:?}]]", pem("client.pem"), pem("client.key"));
    assert_eq!(fetch(&pair).await.unwrap().unwrap(), DATA);
    fetch(&base).await.unwrap_err();
}

#[tokio::test]
async fn wrong_files_are_named() {
    for (line, says) in [
        ("ca = \"none.pem\"", "none.pem: No such file"),
        ("ca = \"hosts.toml\"", "hosts.toml: holds no certificate"),
        ("client = \"none.pem\"", "none.pem: No such file"),
        (&format!("client = {:?}", pem("ca.pem")), "ca.pem: private key:"),
    ] {
        let error = fetch(&format!("server = \"https://127.0.0.1:1\"\n{line}")).await.unwrap_err().to_string();
        assert!(error.contains(says), "{line}: {error}");
    }
}
