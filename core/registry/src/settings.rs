//! Limits and times of the client, the same for all sessions.

use std::{path::PathBuf, time::Duration};

/// How the client behaves. The defaults are containerd's where it has one.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directories with host configuration, in the order to look; sessions may name their own.
    pub config_paths: Vec<PathBuf>,
    /// What the client calls itself.
    pub user_agent: String,
    /// The longest that connecting may take, where `hosts.toml` says nothing.
    pub connect_timeout: Duration,
    /// The longest from sending a request to the head of its answer, the TLS handshake included.
    pub header_timeout: Duration,
    /// The longest pause between two pieces of a body.
    pub stall_timeout: Duration,
    /// How often a request or a broken blob is tried again before it fails; progress starts the count anew.
    pub retries: u32,
    /// The pause before the first retry; doubled for each further one.
    pub backoff: Duration,
    /// The longest pause, also where the registry asks for a longer one.
    pub max_backoff: Duration,
    /// The largest manifest, index or image config taken, in bytes.
    pub document_limit: u64,
    /// The redirects followed for one request.
    pub max_redirects: usize,
    /// Files of certificate authorities that are trusted for every host; the first that exists is read.
    pub system_roots: Vec<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            config_paths: ["/etc/containerd/certs.d", "/etc/docker/certs.d"].map(PathBuf::from).to_vec(),
            user_agent: concat!("kevel/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(30),
            header_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
            retries: 5,
            backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(10),
            document_limit: 8 << 20,
            max_redirects: 10,
            // Where Debian, Fedora, openSUSE and Alpine keep them.
            system_roots: [
                "/etc/ssl/certs/ca-certificates.crt",
                "/etc/pki/tls/certs/ca-bundle.crt",
                "/etc/ssl/ca-bundle.pem",
                "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
                "/etc/ssl/cert.pem",
            ]
            .map(PathBuf::from)
            .to_vec(),
        }
    }
}
