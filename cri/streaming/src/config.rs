//! What the operator chooses: where the server listens, for how long a silent client stays, and TLS.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use kevel_model::{Error, Result};
use serde::{Deserialize, Serialize};

/// The configuration of the streaming server, with containerd's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The IP address to listen on; the address of the node's default route when it is empty.
    pub stream_server_address: String,
    /// The port to listen on; 0 lets the kernel choose.
    pub stream_server_port: String,
    /// How long nothing may happen on a connection before it is ended, e.g. `4h`; `0` is for ever.
    pub stream_idle_timeout: String,
    /// Serve HTTPS.
    pub enable_tls_streaming: bool,
    /// The server's certificate; one that it signs itself when there is none.
    pub x509_key_pair_streaming: KeyPair,
}

/// A certificate and its key, in files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyPair {
    /// The certificate, and those that lead to it, in PEM.
    pub tls_cert_file: PathBuf,
    /// Its private key, in PEM.
    pub tls_key_file: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stream_server_address: Ipv4Addr::LOCALHOST.to_string(),
            stream_server_port: "0".to_owned(),
            stream_idle_timeout: "4h0m0s".to_owned(),
            enable_tls_streaming: false,
            x509_key_pair_streaming: KeyPair::default(),
        }
    }
}

/// How the server gets its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    SelfSigned,
    Files(KeyPair),
}

impl Config {
    pub(crate) fn address(&self) -> Result<IpAddr> {
        if self.stream_server_address.is_empty() {
            return Ok(default_route().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        }
        let wrong = |error| {
            let text = format!("stream_server_address: {:?} is not an IP address", self.stream_server_address);
            Error::invalid_argument(text).with_source(error)
        };
        self.stream_server_address.parse().map_err(wrong)
    }

    pub(crate) fn port(&self) -> Result<u16> {
        let wrong = |error| {
            let text = format!("stream_server_port: {:?} is not a port", self.stream_server_port);
            Error::invalid_argument(text).with_source(error)
        };
        self.stream_server_port.parse().map_err(wrong)
    }

    pub(crate) fn idle(&self) -> Result<Duration> {
        let wrong = || {
            Error::invalid_argument(format!("stream_idle_timeout: {:?} is not a duration", self.stream_idle_timeout))
        };
        duration(&self.stream_idle_timeout).ok_or_else(wrong)
    }

    pub(crate) fn tls(&self) -> Result<Option<Tls>> {
        let pair = &self.x509_key_pair_streaming;
        let given = [&pair.tls_cert_file, &pair.tls_key_file].map(|file| !file.as_os_str().is_empty());
        match (self.enable_tls_streaming, given) {
            (false, [false, false]) => Ok(None),
            (false, _) => {
                Err(Error::invalid_argument("x509_key_pair_streaming: given, but enable_tls_streaming is not on"))
            }
            (true, [false, false]) => Ok(Some(Tls::SelfSigned)),
            (true, [true, true]) => Ok(Some(Tls::Files(pair.clone()))),
            (true, [true, false]) => Err(Error::invalid_argument("x509_key_pair_streaming: tls_key_file is missing")),
            (true, [false, true]) => Err(Error::invalid_argument("x509_key_pair_streaming: tls_cert_file is missing")),
        }
    }
}

/// The address that the node would reach others from. Nothing is sent.
fn default_route() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // An address that documentation has for itself; any that is not on a link of the node will do.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// A duration in Go's form, such as `1h30m` or `500ms`.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut all) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let number = number.parse::<u64>().ok()?;
        all = all.checked_add(match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            _ => return None,
        })?;
        rest = after;
    }
    (!text.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        let check =
            |text: &str, want: Option<u64>| assert_eq!(duration(text), want.map(Duration::from_millis), "{text}");
        check("4h0m0s", Some(4 * 3600 * 1000));
        check("1h30m", Some(90 * 60 * 1000));
        check("500ms", Some(500));
        check("0", Some(0));
        check("0s", Some(0));
        for text in ["", "4", "h", "-1s", "1d", "4h ", "99999999999999999999s", "9999999999999999999h"] {
            check(text, None);
        }
    }

    #[test]
    fn wrong_values_name_their_key() {
        let check = |change: &dyn Fn(&mut Config), key: &str| {
            let mut config = Config::default();
            change(&mut config);
            let found = [config.address().err(), config.port().err(), config.idle().err(), config.tls().err()];
            let found: Vec<String> = found.into_iter().flatten().map(|error| error.to_string()).collect();
            assert_eq!(found.len(), usize::from(!key.is_empty()), "{found:?}");
            assert!(found.iter().all(|error| error.contains(key)), "{found:?}");
        };
        check(&|_| {}, "");
        check(&|config| config.stream_server_address.clear(), "");
        check(&|config| config.stream_server_address = "localhost".to_owned(), "stream_server_address");
        check(&|config| config.stream_server_port = "65536".to_owned(), "stream_server_port");
        check(&|config| config.stream_idle_timeout = "soon".to_owned(), "stream_idle_timeout");
        check(&|config| config.enable_tls_streaming = true, "");
        let file = |config: &mut Config| config.x509_key_pair_streaming.tls_cert_file = "/c".into();
        check(&file, "enable_tls_streaming");
        let one = |config: &mut Config| {
            config.enable_tls_streaming = true;
            file(config);
        };
        check(&one, "tls_key_file");
    }
}
