//! Which hosts to ask for a registry, and how: the directory of a registry below `config_path`, its `hosts.toml` or its
//! certificates in Docker's layout, and the defaults where there is none.
//!
//! Files are read, nothing is fetched. What one file says is in [`file`].

mod certificates;
mod directory;
pub mod file;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderName, HeaderValue};

use crate::Error;

/// What a host may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Fetch by digest.
    pub pull: bool,
    /// Turn a tag into a digest.
    pub resolve: bool,
    /// Take uploads.
    pub push: bool,
}

impl Capabilities {
    /// All of them.
    pub const ALL: Self = Self { pull: true, resolve: true, push: true };
}

/// The protocol of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// TLS, and plain HTTP when the other side does not speak TLS. Only for hosts on this machine, or where a file says
    /// both `http://` and how to do TLS.
    Either,
}

/// How to verify a host and to identify to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// PEM files of certificate authorities, trusted beside the system's.
    pub ca: Vec<PathBuf>,
    /// Client certificates: PEM file, and the file of its key where that is another one.
    pub client: Vec<(PathBuf, Option<PathBuf>)>,
    /// Don't verify the host's certificate.
    pub skip_verify: bool,
}

/// A host that serves a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Protocol.
    pub scheme: Scheme,
    /// `host[:port]`.
    pub authority: String,
    /// Path of the API's root, without a slash at its end: `/v2`.
    pub path: String,
    /// What it may be asked for.
    pub capabilities: Capabilities,
    /// TLS.
    pub identity: Identity,
    /// Headers of every request to it.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The longest that connecting may take.
    pub dial_timeout: Option<Duration>,
    /// Whether it stands in for the registry, as a mirror does; credentials of the registry are not for it.
    pub mirror: bool,
}

impl Host {
    /// `scheme://authority`, as it is shown in errors.
    pub fn url(&self) -> String {
        let scheme = if self.scheme == Scheme::Http { "http" } else { "https" };
        format!("{scheme}://{}", self.authority)
    }

    /// Whether requests must say which registry they are for (`?ns=`): the host is another one than the registry's own.
    pub fn needs_namespace(&self, registry: &str) -> bool {
        self.authority != endpoint(registry)
    }
}

/// Where the API of a registry is when nothing else is configured.
fn endpoint(registry: &str) -> &str {
    if registry == "docker.io" { "registry-1.docker.io" } else { registry }
}

/// The hosts to try for `registry` (`host[:port]`), in order. Looks at the first directory of `config_paths` that has
/// something for it. `plain_http` is for registries that no file mentions.
pub fn load(config_paths: &[PathBuf], registry: &str, plain_http: bool) -> Result<Vec<Host>, Error> {
    let Some(directory) = directory::find(config_paths, registry)? else {
        return Ok(vec![default_host(registry, plain_http, Identity::default())]);
    };
    let file = directory.join("hosts.toml");
    match std::fs::read_to_string(&file) {
        Ok(text) if text.len() > file::MAX_SIZE => Err(Error::config(&file, "larger than 1 MiB")),
        Ok(text) if !text.trim().is_empty() => file::parse(&text, &file, registry, plain_http),
        Ok(_) => certificates_only(&directory, registry, plain_http),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            certificates_only(&directory, registry, plain_http)
        }
        Err(error) => Err(Error::config(&file, error.to_string())),
    }
}

fn certificates_only(directory: &Path, registry: &str, plain_http: bool) -> Result<Vec<Host>, Error> {
    Ok(vec![default_host(registry, plain_http, certificates::find(directory)?)])
}

/// The registry itself, as it is asked when no file names another server.
pub(crate) fn default_host(registry: &str, plain_http: bool, mut identity: Identity) -> Host {
    let authority = endpoint(registry).to_owned();
    let port = port(&authority);
    let scheme = match port {
        _ if plain_http => Scheme::Http,
        Some(80) if is_local(&authority) => Scheme::Http,
        None | Some(443) => Scheme::Https,
        Some(_) if is_local(&authority) => Scheme::Either,
        Some(_) => Scheme::Https,
    };
    // A registry on this machine is trusted as this machine is.
    if is_local(&authority) && identity.ca.is_empty() {
        identity.skip_verify = true;
    }
    Host {
        scheme,
        authority,
        path: "/v2".to_owned(),
        capabilities: Capabilities::ALL,
        identity,
        headers: Vec::new(),
        dial_timeout: None,
        mirror: false,
    }
}

pub(crate) fn port(authority: &str) -> Option<u16> {
    let after_address = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest);
    after_address.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
}

/// Whether an authority is this machine: `localhost`, `*.localhost` or a loopback address.
pub(crate) fn is_local(authority: &str) -> bool {
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split(':').next().unwrap_or(authority),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_without_files() {
        let check = |registry: &str, want: &str, scheme: Scheme, skip: bool| {
            let host = load(&[], registry, false).unwrap().remove(0);
            assert_eq!((host.authority.as_str(), host.scheme, host.identity.skip_verify), (want, scheme, skip));
            assert_eq!(host.path, "/v2");
            assert!(!host.needs_namespace(registry));
        };
        check("docker.io", "registry-1.docker.io", Scheme::Https, false);
        check("gcr.io", "gcr.io", Scheme::Https, false);
        check("gcr.io:5000", "gcr.io:5000", Scheme::Https, false);
        check("localhost", "localhost", Scheme::Https, true);
        check("localhost:80", "localhost:80", Scheme::Http, true);
        check("localhost:5000", "localhost:5000", Scheme::Either, true);
        check("127.0.0.2:5000", "127.0.0.2:5000", Scheme::Either, true);
        check("[::1]:5000", "[::1]:5000", Scheme::Either, true);
        assert_eq!(load(&[], "gcr.io", true).unwrap()[0].scheme, Scheme::Http);
    }
}
