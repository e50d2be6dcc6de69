//! The server's certificate, from files or made for the occasion.

use std::{fs, net::IpAddr, path::Path, sync::Arc};

use kevel_model::{Error, Result};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use tokio_rustls::TlsAcceptor;

use crate::config::Tls;

/// Certificates and keys are a few KiB.
const MAX_FILE: u64 = 1 << 20;

/// Reads or makes the certificate. Blocks.
pub(crate) fn acceptor(tls: &Tls, address: IpAddr) -> Result<TlsAcceptor> {
    let (chain, key) = match tls {
        Tls::SelfSigned => self_signed(address)?,
        Tls::Files(pair) => (certificates(&pair.tls_cert_file)?, key(&pair.tls_key_file)?),
    };
    let wrong = |error: rustls::Error| {
        Error::invalid_argument("x509_key_pair_streaming: certificate and key are of no use").with_source(error)
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(wrong)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A certificate for the address, in memory only.
fn self_signed(address: IpAddr) -> Result<Identity> {
    let failed = |error: rcgen::Error| Error::internal("making a certificate for streaming").with_source(error);
    let names = vec![address.to_string(), "localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).map_err(failed)?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    Ok((vec![made.cert.der().clone()], PrivateKeyDer::Pkcs8(key)))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = read("tls_cert_file", file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(Error::invalid_argument(format!("tls_cert_file: no certificate in {}", file.display()))),
    }
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>> {
    // The cause is not told: it could quote the key.
    let wrong = |_| Error::invalid_argument(format!("tls_key_file: no private key in {}", file.display()));
    PrivateKeyDer::from_pem_slice(&read("tls_key_file", file)?).map_err(wrong)
}

fn read(name: &str, file: &Path) -> Result<Vec<u8>> {
    let failed = |error| Error::io(format!("{name}: reading {}", file.display()), error);
    if fs::metadata(file).map_err(failed)?.len() > MAX_FILE {
        return Err(Error::invalid_argument(format!("{name}: {} is too large", file.display())));
    }
    fs::read(file).map_err(failed)
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_STANDARD};

    use super::*;
    use crate::config::KeyPair;

    fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
    }

    #[test]
    fn certificates_are_made_or_read() {
        let address = IpAddr::from([127, 0, 0, 1]);
        acceptor(&Tls::SelfSigned, address).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let pair = KeyPair { tls_cert_file: dir.path().join("c"), tls_key_file: dir.path().join("k") };
        let check = |certificate: &str, key: &str, want: &str| {
            fs::write(&pair.tls_cert_file, certificate).unwrap();
            fs::write(&pair.tls_key_file, key).unwrap();
            match acceptor(&Tls::Files(pair.clone()), address) {
                Ok(_) => assert_eq!(want, ""),
                Err(error) => assert!(!want.is_empty() && error.to_string().contains(want), "{error}"),
            }
        };
        let certificate = pem("CERTIFICATE", made.cert.der());
        let key = pem("PRIVATE KEY", &made.signing_key.serialize_der());
        check(&certificate, &key, "");
        check("", &key, "tls_cert_file");
        check(&certificate, "", "tls_key_file");
        let other = pem("PRIVATE KEY", &rcgen::KeyPair::generate().unwrap().serialize_der());
        check(&certificate, &other, "x509_key_pair_streaming");
        fs::remove_file(&pair.tls_key_file).unwrap();
        assert!(acceptor(&Tls::Files(pair), address).err().unwrap().to_string().contains("tls_key_file"));
    }
}
