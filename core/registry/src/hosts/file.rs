//! `hosts.toml`: parsing one file. Fields and meaning are containerd's; unlike there, a file that is wrong is an error
//! that names the field, never a silent fall back to the registry itself.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderName, HeaderValue, Uri};
use toml::{Table, Value};

use super::{Capabilities, Host, Identity, Scheme, default_host};
use crate::Error;

/// The largest file that is read, in bytes.
pub const MAX_SIZE: usize = 1 << 20;
/// No file names more hosts.
const MAX_HOSTS: usize = 64;

/// The hosts that a file lists, in its order, the `server` last. `file` is for errors and relative paths.
pub fn parse(text: &str, file: &Path, registry: &str, plain_http: bool) -> Result<Vec<Host>, Error> {
    let wrong = |message: String| Error::config(file, message);
    let table: Table = text.parse().map_err(|error: toml::de::Error| wrong(error.to_string().trim().to_owned()))?;
    let base = file.parent().unwrap_or(Path::new("/"));
    let mut hosts = Vec::new();
    match table.get("host") {
        None => {}
        Some(Value::Table(entries)) if entries.len() > MAX_HOSTS => {
            return Err(wrong(format!("host: more than {MAX_HOSTS} hosts")));
        }
        Some(Value::Table(entries)) => {
            for (url, entry) in entries {
                let place = format!("host.{url:?}");
                let Value::Table(fields) = entry else { return Err(wrong(format!("{place}: must be a table"))) };
                hosts.push(host(url, fields, base, true).map_err(|message| wrong(format!("{place}.{message}")))?);
            }
        }
        Some(_) => return Err(wrong("host: must be a table".to_owned())),
    }
    let server = match table.get("server") {
        None => "",
        Some(Value::String(server)) => server,
        Some(_) => return Err(wrong("server: must be a string".to_owned())),
    };
    hosts.push(if server.is_empty() {
        let fields = Fields::read(&table, base).map_err(wrong)?;
        fields.apply(default_host(registry, plain_http, Identity::default()))
    } else {
        host(server, &table, base, false).map_err(wrong)?
    });
    Ok(hosts)
}

fn host(url: &str, table: &Table, base: &Path, mirror: bool) -> Result<Host, String> {
    let fields = Fields::read(table, base)?;
    let url = if url.starts_with("http://") || url.starts_with("https://") {
        url.to_owned()
    } else if url.contains("://") {
        return Err(format!("server: {url:?} is neither http nor https"));
    } else {
        format!("https://{url}")
    };
    let bad = || format!("server: {url:?} is not scheme://host[:port][/path]");
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let authority = uri.authority().ok_or_else(bad)?;
    if authority.as_str().contains('@') || uri.query().is_some() {
        return Err(bad());
    }
    let explicit_tls = fields.identity != Identity::default();
    let scheme = match uri.scheme_str() {
        Some("http") if explicit_tls && authority.port_u16() != Some(80) => Scheme::Either,
        Some("http") => Scheme::Http,
        _ => Scheme::Https,
    };
    let mut path = clean(uri.path());
    if !fields.override_path && !path.ends_with("/v2") {
        path.push_str("/v2");
    }
    Ok(fields.apply(Host {
        scheme,
        authority: authority.as_str().to_owned(),
        path,
        capabilities: Capabilities::ALL,
        identity: Identity::default(),
        headers: Vec::new(),
        dial_timeout: None,
        mirror,
    }))
}

/// A path without empty and dot parts and without a slash at its end.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.iter().fold(String::new(), |path, part| path + "/" + part)
}

/// The fields that the root and each host have in common.
struct Fields {
    capabilities: Capabilities,
    identity: Identity,
    skip_verify: Option<bool>,
    headers: Vec<(HeaderName, HeaderValue)>,
    override_path: bool,
    dial_timeout: Option<Duration>,
}

impl Fields {
    fn read(table: &Table, base: &Path) -> Result<Self, String> {
        let boolean = |name: &str| match table.get(name) {
            None => Ok(None),
            Some(Value::Boolean(value)) => Ok(Some(*value)),
            Some(_) => Err(format!("{name}: must be true or false")),
        };
        let skip_verify = boolean("skip_verify")?;
        Ok(Self {
            capabilities: capabilities(table.get("capabilities"))?,
            identity: Identity {
                ca: authorities(table.get("ca"), base)?,
                client: clients(table.get("client"), base)?,
                skip_verify: skip_verify.unwrap_or_default(),
            },
            skip_verify,
            headers: headers(table.get("header"))?,
            override_path: boolean("override_path")?.unwrap_or_default(),
            dial_timeout: dial_timeout(table.get("dial_timeout"))?,
        })
    }

    fn apply(self, host: Host) -> Host {
        let skip_verify = self.skip_verify.unwrap_or(host.identity.skip_verify && self.identity.ca.is_empty());
        Host {
            capabilities: self.capabilities,
            identity: Identity { skip_verify, ..self.identity },
            headers: self.headers,
            dial_timeout: self.dial_timeout,
            ..host
        }
    }
}

fn capabilities(value: Option<&Value>) -> Result<Capabilities, String> {
    let Some(value) = value else { return Ok(Capabilities::ALL) };
    let names = strings(value).ok_or("capabilities: must be a list of strings")?;
    if names.is_empty() {
        return Ok(Capabilities::ALL);
    }
    let mut capabilities = Capabilities { pull: false, resolve: false, push: false };
    for name in names {
        match name.to_ascii_lowercase().as_str() {
            "pull" => capabilities.pull = true,
            "resolve" => capabilities.resolve = true,
            "push" => capabilities.push = true,
            "referrers" => {}
            _ => return Err(format!("capabilities: {name:?} is not pull, resolve, push or referrers")),
        }
    }
    Ok(capabilities)
}

fn authorities(value: Option<&Value>, base: &Path) -> Result<Vec<PathBuf>, String> {
    match value {
        None => Ok(Vec::new()),
        Some(Value::String(file)) => Ok(vec![base.join(file)]),
        Some(value) => {
            let files = strings(value).ok_or("ca: must be a string or a list of strings")?;
            Ok(files.into_iter().map(|file| base.join(file)).collect())
        }
    }
}

fn clients(value: Option<&Value>, base: &Path) -> Result<Vec<(PathBuf, Option<PathBuf>)>, String> {
    const WRONG: &str = "client: must be a string, a list of strings, or a list of [certificate, key]";
    let list = match value {
        None => return Ok(Vec::new()),
        Some(Value::String(file)) => return Ok(vec![(base.join(file), None)]),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(WRONG.to_owned()),
    };
    list.iter()
        .map(|entry| match entry {
            Value::String(file) => Ok((base.join(file), None)),
            pair => match strings(pair).as_deref() {
                Some([certificate, ""]) => Ok((base.join(certificate), None)),
                Some([certificate, key]) => Ok((base.join(certificate), Some(base.join(key)))),
                _ => Err(WRONG.to_owned()),
            },
        })
        .collect()
}

fn headers(value: Option<&Value>) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let table = match value {
        None => return Ok(Vec::new()),
        Some(Value::Table(table)) => table,
        Some(_) => return Err("header: must be a table".to_owned()),
    };
    let mut headers = Vec::new();
    for (name, value) in table {
        let values = match value {
            Value::String(value) => vec![value.as_str()],
            value => strings(value).ok_or_else(|| format!("header.{name}: must be a string or a list of strings"))?,
        };
        let parsed: HeaderName = name.parse().map_err(|_| format!("header.{name}: not the name of a header"))?;
        for value in values {
            // The value may be a secret: it is not shown.
            let mut value = HeaderValue::from_str(value).map_err(|_| format!("header.{name}: not a header's value"))?;
            value.set_sensitive(true);
            headers.push((parsed.clone(), value));
        }
    }
    Ok(headers)
}

fn dial_timeout(value: Option<&Value>) -> Result<Option<Duration>, String> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => duration(text)
            .map(Some)
            .ok_or_else(|| format!("dial_timeout: {text:?} is not a duration such as \"1m30s\"")),
        Some(_) => Err("dial_timeout: must be a string".to_owned()),
    }
}

/// A Go duration: numbers with `ns`, `us`, `ms`, `s`, `m` or `h`, one after the other. At most a day.
fn duration(text: &str) -> Option<Duration> {
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..end] {
                "ns" => 1e-9,
                "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[end..];
    }
    (seconds > 0.0 && seconds <= 86_400.0).then(|| Duration::from_secs_f64(seconds))
}

fn strings(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
