//! The deprecated ways to say how registries are found: `mirrors`, `configs` and `auths`. They become a directory of
//! `hosts.toml` files, so that there is one way in which registries are asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kevel_contract::transfer::Credentials;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::RegistryConfig;

/// Hosts to ask instead of a registry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoints {
    /// Their URLs, in the order to ask.
    pub endpoint: Vec<String>,
}

/// What is needed to talk to one host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostConfig {
    /// Who the puller is.
    pub auth: Option<HostAuth>,
    /// How to verify it, and to identify to it.
    pub tls: Option<HostTls>,
}

/// Who the puller is, to one host. Secrets are read, never shown.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostAuth {
    /// User name.
    pub username: String,
    /// Password.
    #[serde(skip_serializing)]
    pub password: String,
    /// Base64 of `user:password`.
    #[serde(skip_serializing)]
    pub auth: String,
    /// A refresh token.
    #[serde(skip_serializing)]
    pub identitytoken: String,
}

impl fmt::Debug for HostAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// How to verify a host, and to identify to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostTls {
    /// Do not verify it.
    pub insecure_skip_verify: bool,
    /// File of certificate authorities.
    pub ca_file: String,
    /// File of the client's certificate.
    pub cert_file: String,
    /// File of its key.
    pub key_file: String,
}

impl HostAuth {
    /// As pulls carry it; none if it says nothing.
    ///
    /// # Errors
    /// When `auth` is not base64 of `user:password`.
    pub fn credentials(&self) -> Result<Option<Credentials>, String> {
        let (mut username, mut secret) = (self.username.clone(), self.password.clone());
        if !self.identitytoken.is_empty() {
            (username, secret) = (String::new(), self.identitytoken.clone());
        } else if username.is_empty() && !self.auth.is_empty() {
            let decoded = BASE64_STANDARD.decode(self.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let pair =
                decoded.as_deref().and_then(|text| text.split_once(':')).ok_or("auth: not base64 of user:password")?;
            (username, secret) = (pair.0.to_owned(), pair.1.trim_matches('\0').to_owned());
        }
        let credentials = Credentials { username, secret, registry_token: String::new() };
        Ok((credentials != Credentials::default()).then_some(credentials))
    }
}

impl RegistryConfig {
    /// Whether anything deprecated is said, by key.
    pub(crate) fn deprecated(&self) -> Vec<&'static str> {
        let keys = [
            ("registry.mirrors", self.mirrors.is_empty()),
            ("registry.configs", self.configs.is_empty()),
            ("registry.auths", self.auths.is_empty()),
        ];
        keys.into_iter().filter(|(_, empty)| !empty).map(|(key, _)| key).collect()
    }

    /// Whether anything deprecated says how hosts are asked.
    pub(crate) fn has_hosts(&self) -> bool {
        !self.mirrors.is_empty() || self.configs.values().any(|host| host.tls.is_some())
    }

    /// Checks what is deprecated; the error names the key.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !self.config_path.is_empty() && self.has_hosts() {
            let key = if self.mirrors.is_empty() { "registry.configs.*.tls" } else { "registry.mirrors" };
            return Err(format!("{key}: can't be set together with registry.config_path"));
        }
        for (registry, endpoints) in &self.mirrors {
            if let Some(bad) = endpoints.endpoint.iter().find(|url| split(url).is_none()) {
                return Err(format!("registry.mirrors.{registry:?}.endpoint: {bad:?} is not a URL"));
            }
            name(registry).ok_or_else(|| format!("registry.mirrors.{registry:?}: not the name of a registry"))?;
        }
        for (host, config) in &self.configs {
            name(host).ok_or_else(|| format!("registry.configs.{host:?}: not the name of a registry"))?;
            if let Some(auth) = &config.auth {
                auth.credentials().map_err(|why| format!("registry.configs.{host:?}.auth.{why}"))?;
            }
        }
        for (url, auth) in &self.auths {
            auth.credentials().map_err(|why| format!("registry.auths.{url:?}.{why}"))?;
        }
        Ok(())
    }

    /// Who the puller is to a host when the kubelet does not say.
    pub(crate) fn credentials(&self, host: &str) -> Option<Credentials> {
        let docker = ["docker.io", "registry-1.docker.io", "index.docker.io"];
        let same = |other: &str| other == host || (docker.contains(&other) && docker.contains(&host));
        let configs = self.configs.iter().filter(|(name, _)| same(name)).filter_map(|(_, config)| config.auth.as_ref());
        let auths = self.auths.iter().filter(|(url, _)| same(split(url).map_or(url, |(_, host)| host)));
        configs.chain(auths.map(|(_, auth)| auth)).find_map(|auth| auth.credentials().ok().flatten())
    }

    /// The `hosts.toml` of every registry that something is said of, by the name of its directory.
    pub(crate) fn files(&self) -> BTreeMap<String, String> {
        let mut registries: BTreeSet<&str> = self.mirrors.keys().map(String::as_str).collect();
        registries.extend(self.configs.iter().filter(|(_, host)| host.tls.is_some()).map(|(name, _)| name.as_str()));
        registries.into_iter().filter_map(|registry| Some((name(registry)?, self.file(registry).to_string()))).collect()
    }

    fn file(&self, registry: &str) -> Table {
        let mut file = self.tls(registry);
        let mirrors = self.mirrors.get(registry).or_else(|| self.mirrors.get("*"));
        let mut hosts = Table::new();
        for url in mirrors.map_or(&[][..], |mirrors| &mirrors.endpoint) {
            let Some((_, host)) = split(url) else { continue };
            if host == registry {
                file.insert("server".to_owned(), url.as_str().into()); // the registry itself, and so asked last
                continue;
            }
            let mut table = self.tls(host);
            table.insert("capabilities".to_owned(), vec!["pull", "resolve"].into());
            if let Some(credentials) = self.credentials(host).filter(|one| !one.username.is_empty()) {
                let basic = BASE64_STANDARD.encode(format!("{}:{}", credentials.username, credentials.secret));
                let header = Table::from_iter([("Authorization".to_owned(), Value::from(format!("Basic {basic}")))]);
                table.insert("header".to_owned(), header.into());
            }
            hosts.insert(url.clone(), table.into());
        }
        if !hosts.is_empty() {
            file.insert("host".to_owned(), hosts.into());
        }
        file
    }

    fn tls(&self, host: &str) -> Table {
        let mut table = Table::new();
        let Some(tls) = self.configs.get(host).and_then(|config| config.tls.as_ref()) else { return table };
        if tls.insecure_skip_verify {
            table.insert("skip_verify".to_owned(), true.into());
        }
        if !tls.ca_file.is_empty() {
            table.insert("ca".to_owned(), tls.ca_file.as_str().into());
        }
        if !tls.cert_file.is_empty() {
            let pair = vec![tls.cert_file.as_str(), tls.key_file.as_str()];
            table.insert("client".to_owned(), Value::Array(vec![pair.into()]));
        }
        table
    }

    /// Writes [`Self::files`] below `dir`, for root alone: they may hold passwords.
    pub(crate) fn write(&self, dir: &Path) -> std::io::Result<()> {
        use std::{
            fs,
            io::Write as _,
            os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
        };
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        for (name, text) in self.files() {
            let dir = dir.join(name);
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(dir.join("hosts.toml"))?;
            // A file without a word would mean certificates in Docker's layout.
            writeln!(file, "# from the node's configuration\n{text}")?;
        }
        Ok(())
    }
}

/// Scheme and `host[:port]` of a URL.
fn split(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split('/').next().filter(|host| !host.is_empty() && !host.contains('@'))?;
    ["http", "https"].contains(&scheme).then_some((scheme, host))
}

/// The directory of a registry; none for what can't be one.
fn name(registry: &str) -> Option<String> {
    match registry {
        "*" => Some("_default".to_owned()),
        "" | "." | ".." => None,
        name if name.contains(['/', '\0']) || name.starts_with('_') => None,
        name => Some(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"
        [mirrors."docker.io"]
        endpoint = ["http://cache:5000", "https://registry-1.docker.io"]
        [mirrors."*"]
        endpoint = ["https://all"]
        [mirrors."local:1"]
        endpoint = ["http://local:1"]
        [configs."cache:5000".auth]
        username = "u"
        password = "p"
        [configs."cache:5000".tls]
        insecure_skip_verify = true
        [configs."quay.io".tls]
        ca_file = "/ca"
        cert_file = "/cert"
        key_file = "/key"
        [configs."quay.io".auth]
        auth = "dTpwOnE="
        [auths."https://gcr.io"]
        identitytoken = "t"
    "#;

    #[test]
    fn what_is_deprecated_becomes_hosts_files() {
        let config: RegistryConfig = toml::from_str(OLD).unwrap();
        config.check().unwrap();
        assert_eq!(config.deprecated().len(), 3);
        let files = config.files();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["_default", "cache:5000", "docker.io", "local:1", "quay.io"]);
        let parse = |name: &str| files[name].parse::<Table>().unwrap();
        let docker = parse("docker.io");
        assert_eq!(docker["host"]["http://cache:5000"]["skip_verify"].as_bool(), Some(true));
        let header = &docker["host"]["http://cache:5000"]["header"]["Authorization"];
        assert_eq!(header.as_str(), Some("Basic dTpw"));
        let order: Vec<_> = docker["host"].as_table().unwrap().keys().collect();
        assert_eq!(order, ["http://cache:5000", "https://registry-1.docker.io"]);
        assert_eq!(parse("local:1").to_string().trim(), r#"server = "http://local:1""#);
        let quay = parse("quay.io");
        assert_eq!((quay["ca"].as_str(), quay["client"][0][1].as_str()), (Some("/ca"), Some("/key")));
        assert!(parse("_default").get("server").is_none());
    }

    #[test]
    fn credentials_are_found_by_host_and_not_shown() {
        let config: RegistryConfig = toml::from_str(OLD).unwrap();
        let check = |host: &str, want: Option<(&str, &str)>| {
            let got = config.credentials(host);
            assert_eq!(got.as_ref().map(|one| (one.username.as_str(), one.secret.as_str())), want, "{host}");
        };
        check("quay.io", Some(("u", "p:q")));
        check("gcr.io", Some(("", "t")));
        check("docker.io", None);
        let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
        assert!(!shown.contains("\"p\"") && !shown.contains("dTpwOnE=") && !shown.contains("\"t\""), "{shown}");
    }

    #[test]
    fn files_are_written_for_root_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let config: RegistryConfig = toml::from_str(OLD).unwrap();
        let certs = dir.path().join("certs.d");
        for _ in 0..2 {
            config.write(&certs).unwrap();
        }
        let file = certs.join("docker.io/hosts.toml");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn wrong_tables_are_refused() {
        let check = |text: &str, wants: &str| {
            let config: RegistryConfig = toml::from_str(text).unwrap();
            assert_eq!(config.check().unwrap_err(), wants);
        };
        let mirrors = "config_path = \"/c\"\n[mirrors.a]\nendpoint = [\"http://b\"]";
        check(mirrors, "registry.mirrors: can't be set together with registry.config_path");
        check("[mirrors.a]\nendpoint = [\"b\"]", "registry.mirrors.\"a\".endpoint: \"b\" is not a URL");
        check("[mirrors.\"../x\"]", "registry.mirrors.\"../x\": not the name of a registry");
        check("[configs.a.auth]\nauth = \"%\"", "registry.configs.\"a\".auth.auth: not base64 of user:password");
    }
}
