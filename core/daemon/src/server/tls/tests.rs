//! Who is let in, with certificates made for the occasion.

use base64::Engine as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_stream::StreamExt as _;

use super::*;

struct Authority(CertifiedIssuer<'static, KeyPair>);

struct Identity {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self) -> Identity {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.0).unwrap();
        Identity { certificate: certificate.der().clone(), key: key.serialize_der() }
    }

    fn certificate(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }
}

fn pem(sort: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    format!("-----BEGIN {sort}-----\n{}\n-----END {sort}-----\n", lines.join("\n"))
}

/// What a client reads of a server that greets whom it lets in.
async fn greeting(port: u16, authority: &Authority, identity: Option<Identity>) -> io::Result<Vec<u8>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let client = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { certificate, key }) => {
            builder.with_client_auth_cert(vec![certificate], PrivateKeyDer::try_from(key).unwrap()).unwrap()
        }
    };
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await?;
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await?;
    Ok(said)
}

#[tokio::test]
async fn who_has_no_certificate_of_the_authority_stays_outside() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).to_str().unwrap().to_owned()
    };
    let own = ours.issue();
    let config = Config {
        tls_ca: file("ca", pem("CERTIFICATE", &ours.certificate())),
        tls_cert: file("cert", pem("CERTIFICATE", &own.certificate)),
        tls_key: file("key", pem("PRIVATE KEY", &own.key)),
        ..Config::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stop = CancellationToken::new();
    let mut secured = Secured::accept(listener, acceptor(&config).unwrap(), stop.clone());
    tokio::spawn(async move {
        while let Some(Ok(mut stream)) = secured.next().await {
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    // One that says nothing holds up nobody.
    let _silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert!(greeting(port, &ours, None).await.is_err(), "no certificate");
    assert!(greeting(port, &ours, Some(theirs.issue())).await.is_err(), "another authority's");
    assert_eq!(greeting(port, &ours, Some(ours.issue())).await.unwrap(), b"hello");
    stop.cancel();
}

#[test]
fn files_that_are_of_no_use_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    std::fs::write(&text, "no certificate").unwrap();
    let text = text.to_str().unwrap().to_owned();
    let check = |config: Config, want: &str| {
        let error = format!("{:#}", acceptor(&config).err().unwrap());
        assert!(error.starts_with(want), "{error}");
    };
    let own = Authority::new().issue();
    let cert = dir.path().join("cert");
    std::fs::write(&cert, pem("CERTIFICATE", &own.certificate)).unwrap();
    let cert = cert.to_str().unwrap().to_owned();
    check(Config { tls_cert: text.clone(), ..Config::default() }, "tls_cert: no certificate in");
    check(Config { tls_cert: "/nowhere".to_owned(), ..Config::default() }, "tls_cert: reading /nowhere");
    check(Config { tls_cert: "cert".to_owned(), ..Config::default() }, "tls_cert: cert is not an absolute path");
    check(Config { tls_cert: cert, tls_key: text, ..Config::default() }, "tls_key: no private key in");
}
