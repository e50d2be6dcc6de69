//! TLS as a host's identity asks for it: who is trusted, and who we are.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};

use crate::{Error, Settings, hosts::Identity};

/// No file of certificates is larger, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// The configuration of connections to hosts of this identity.
pub(crate) fn config(settings: &Settings, identity: &Identity) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Invalid(format!("setting up TLS: {error}")))?;
    let builder = if identity.skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
    } else {
        builder.with_root_certificates(roots(settings, identity)?)
    };
    // TLS asks for one identity; rustls takes one chain. The first of the list is it.
    match identity.client.first() {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let key_file = key.as_deref().unwrap_or(certificate);
            let key = PrivateKeyDer::from_pem_slice(&read(key_file)?)
                .map_err(|error| Error::config(key_file, format!("private key: {error}")))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| Error::config(certificate, format!("client certificate: {error}")))
        }
    }
}

fn roots(settings: &Settings, identity: &Identity) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = settings.system_roots.iter().find(|file| file.is_file()) {
        // The system's bundle may hold certificates that rustls does not take; the others count.
        roots.add_parsable_certificates(certificates(file)?);
    }
    for file in &identity.ca {
        for certificate in certificates(file)? {
            roots.add(certificate).map_err(|error| Error::config(file, format!("certificate authority: {error}")))?;
        }
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&read(file)?)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::config(file, format!("certificate: {error}")))?;
    if certificates.is_empty() {
        return Err(Error::config(file, "holds no certificate"));
    }
    Ok(certificates)
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    let wrong = |error: std::io::Error| Error::config(file, error.to_string());
    if std::fs::metadata(file).map_err(wrong)?.len() > MAX_FILE {
        return Err(Error::config(file, "larger than 4 MiB"));
    }
    std::fs::read(file).map_err(wrong)
}

/// Takes any certificate, as `skip_verify` asks; signatures are still checked.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
