//! The table of `io.containerd.nri.v1.nri`, under containerd's keys.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::validator::ValidatorConfig;

/// How plugins are found and what they may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NriConfig {
    /// Have no plugins at all.
    pub disable: bool,
    /// The socket that plugins connect to, with mode 0600.
    pub socket_path: PathBuf,
    /// Where plugins are that the daemon starts.
    pub plugin_path: PathBuf,
    /// Where their configuration is: `NN-name.conf`, or else `name.conf`.
    pub plugin_config_path: PathBuf,
    /// How long a plugin may take to register, and to take in what is there already, e.g. `5s`.
    #[serde(deserialize_with = "deserialize", serialize_with = "serialize")]
    pub plugin_registration_timeout: Duration,
    /// How long a plugin may take for a request, e.g. `2s`.
    #[serde(deserialize_with = "deserialize", serialize_with = "serialize")]
    pub plugin_request_timeout: Duration,
    /// Let no plugin connect; only those that the daemon starts are there.
    pub disable_connections: bool,
    /// What plugins may not adjust, and which must be there.
    pub default_validator: ValidatorConfig,
}

impl Default for NriConfig {
    fn default() -> Self {
        Self {
            disable: false,
            socket_path: PathBuf::from("/var/run/nri/nri.sock"),
            plugin_path: PathBuf::from("/opt/nri/plugins"),
            plugin_config_path: PathBuf::from("/etc/nri/conf.d"),
            plugin_registration_timeout: Duration::from_secs(5),
            plugin_request_timeout: Duration::from_secs(2),
            disable_connections: false,
            default_validator: ValidatorConfig::default(),
        }
    }
}

impl NriConfig {
    /// The first key whose value means nothing.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.disable {
            return Ok(());
        }
        let timeouts = [
            ("plugin_registration_timeout", self.plugin_registration_timeout),
            ("plugin_request_timeout", self.plugin_request_timeout),
        ];
        if let Some((key, _)) = timeouts.iter().find(|(_, value)| value.is_zero()) {
            return Err(format!("{key}: must be more than 0"));
        }
        if !self.disable_connections && !self.socket_path.is_absolute() {
            return Err(format!("socket_path: {} is not an absolute path", self.socket_path.display()));
        }
        // A path this long can't be bound.
        if !self.disable_connections && self.socket_path.as_os_str().len() > 107 {
            return Err("socket_path: longer than the 107 bytes that a socket's path may have".to_owned());
        }
        Ok(())
    }
}

/// Durations as Go writes them: numbers with units, as in `1m30s`, `2.5s` or `100ms`.
fn parse(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 6] = [("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|digits| *digits > 0)?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, scale) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        seconds += number * scale;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    parse(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is not a duration such as 2s or 1m30s")))
}

fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    match duration.subsec_nanos() {
        0 => to.serialize_str(&format!("{}s", duration.as_secs())),
        _ => to.serialize_str(&format!("{}ms", duration.as_secs_f64() * 1e3)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("5s", Some(5000)),
            ("1m30s", Some(90_000)),
            ("2.5s", Some(2500)),
            ("100ms", Some(100)),
            ("1h", Some(3_600_000)),
            ("0", Some(0)),
            ("", None),
            ("5", None),
            ("s", None),
            ("-1s", None),
            ("5 s", None),
            ("1e9999s", None),
        ] {
            assert_eq!(parse(text), expected.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn containerds_keys_are_read_and_written() {
        let text = r#"{
            "disable": false, "socket_path": "/a/n.sock", "plugin_path": "/p", "plugin_config_path": "/c",
            "plugin_registration_timeout": "7s", "plugin_request_timeout": "150ms", "disable_connections": true,
            "default_validator": {
                "enable": true, "reject_oci_hook_adjustment": true, "required_plugins": ["a"],
                "tolerate_missing_plugins_annotation": "x"
            }
        }"#;
        let config: NriConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.plugin_request_timeout, Duration::from_millis(150));
        assert!(config.default_validator.enable && config.default_validator.reject_oci_hook_adjustment);
        let again: NriConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn wrong_values_are_named() {
        let config = NriConfig { plugin_request_timeout: Duration::ZERO, ..NriConfig::default() };
        assert!(config.check().unwrap_err().starts_with("plugin_request_timeout"));
        let config = NriConfig { socket_path: "nri.sock".into(), ..NriConfig::default() };
        assert!(config.check().unwrap_err().starts_with("socket_path"));
        assert_eq!(NriConfig { disable: true, ..config }.check(), Ok(()));
    }
}
