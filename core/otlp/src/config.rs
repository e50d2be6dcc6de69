//! What is exported, where and how: the two tables of the configuration and OpenTelemetry's variables of the environment,
//! which win. containerd 1 has the tables, containerd 2 the variables.

use std::{collections::BTreeMap, time::Duration};

use http::{Uri, uri::PathAndQuery};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// The property under which a plugin finds a variable of the environment.
const VARIABLE: &str = "io.kevel.plugin.environment.";
/// Where a collector takes traces over HTTP.
const TRACES: &str = "/v1/traces";
/// How long one sending may take when nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Variables that say what is not here, and what happens instead.
const IGNORED: [&str; 8] = [
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
];

/// How a collector is talked to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Protocol {
    /// Protobuf over HTTP/1.1.
    #[default]
    #[serde(rename = "http/protobuf")]
    Http,
    /// gRPC.
    #[serde(rename = "grpc")]
    Grpc,
}

/// The table of `io.containerd.tracing.processor.v1.otlp`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OtlpConfig {
    /// The collector: a URL, or `HOST:PORT`. Nothing is exported when it is empty and no variable names one.
    #[serde(deserialize_with = "checked_endpoint")]
    pub(crate) endpoint: String,
    /// `http/protobuf` or `grpc`; the former when empty.
    #[serde(deserialize_with = "checked_protocol")]
    pub(crate) protocol: String,
    /// Without TLS, for an endpoint that does not say by its scheme.
    pub(crate) insecure: bool,
}

/// The table of `io.containerd.internal.v1.tracing`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TracingConfig {
    /// The name of the service in traces; `keveld` when empty.
    pub(crate) service_name: String,
    /// Which part of the traces that begin here is recorded, from 0 to 1; all when left out. Callers decide about theirs.
    #[serde(deserialize_with = "checked_ratio", skip_serializing_if = "Option::is_none")]
    pub(crate) sampling_ratio: Option<f64>,
}

fn checked_endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if !text.is_empty() {
        url(&text, true).map_err(|why| D::Error::custom(format!("endpoint: {why}")))?;
    }
    Ok(text)
}

fn checked_protocol<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    protocol(&text).map_err(|why| D::Error::custom(format!("protocol: {why}")))?;
    Ok(text)
}

fn checked_ratio<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let ratio = f64::deserialize(deserializer)?;
    ratio_of(ratio).map(Some).map_err(|why| D::Error::custom(format!("sampling_ratio: {why}")))
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "" | "http/protobuf" => Ok(Protocol::Http),
        "grpc" => Ok(Protocol::Grpc),
        other => Err(format!("{other:?} is not http/protobuf or grpc")),
    }
}

fn ratio_of(ratio: f64) -> Result<f64, String> {
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err(format!("{ratio} is not between 0 and 1")) }
}

/// A URL with scheme, from one that may lack it.
fn url(text: &str, insecure: bool) -> Result<Uri, String> {
    let full = match text.contains("://") {
        true => text.to_owned(),
        false => format!("{}://{text}", if insecure { "http" } else { "https" }),
    };
    let uri: Uri = full.parse().map_err(|error| format!("{text:?} is no URL and no HOST:PORT: {error}"))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(authority)) if !authority.host().is_empty() => Ok(uri),
        _ => Err(format!("{text:?} is not http://HOST:PORT, https://HOST:PORT or HOST:PORT")),
    }
}

/// OpenTelemetry's variables of the environment. An empty one counts as not set.
#[derive(Debug, Default)]
pub(crate) struct Environment(BTreeMap<&'static str, String>);

/// Every variable that is looked at here. Headers, attributes of the resource and the sizes of the queue are read by
/// OpenTelemetry's own code.
const VARIABLES: [&str; 16] = [
    "OTEL_SDK_DISABLED",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_TRACES_EXPORTER",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_INSECURE",
    "OTEL_EXPORTER_OTLP_TRACES_INSECURE",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
];

impl Environment {
    /// The variables, by what answers the properties of the daemon.
    pub(crate) fn new<'a>(property: impl Fn(&str) -> Option<&'a str>) -> Self {
        let known = VARIABLES.iter().chain(&IGNORED);
        let set = known.filter_map(|name| Some((*name, property(&format!("{VARIABLE}{name}"))?.trim().to_owned())));
        Self(set.filter(|(_, value)| !value.is_empty()).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The first of these that is set, with its name.
    fn first(&self, names: [&'static str; 2]) -> Option<(&'static str, &str)> {
        names.into_iter().find_map(|name| Some((name, self.get(name)?)))
    }

    fn flag(&self, name: &str, text: &str) -> Result<bool, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "1" => Ok(true),
            "false" | "f" | "0" => Ok(false),
            _ => Err(format!("{name}: {text:?} is not true or false")),
        }
    }

    /// Variables that are set and not acted on.
    pub(crate) fn ignored(&self) -> impl Iterator<Item = &'static str> {
        IGNORED.into_iter().filter(|name| self.get(name).is_some_and(|value| value != "none"))
    }

    /// Why there are no traces, if the environment says that there are none.
    pub(crate) fn off(&self) -> Result<Option<String>, String> {
        if let Some(text) = self.get("OTEL_SDK_DISABLED")
            && self.flag("OTEL_SDK_DISABLED", text)?
        {
            return Ok(Some(format!("tracing is disabled by OTEL_SDK_DISABLED={text}")));
        }
        match self.get("OTEL_TRACES_EXPORTER") {
            None | Some("otlp") => Ok(None),
            Some("none") => Ok(Some("tracing is disabled by OTEL_TRACES_EXPORTER=none".to_owned())),
            Some(other) => Err(format!("OTEL_TRACES_EXPORTER: {other:?} is not otlp or none")),
        }
    }
}

/// Where traces go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) protocol: Protocol,
    /// With scheme, and for HTTP with the whole path.
    pub(crate) endpoint: Uri,
    /// How long one sending may take, with all its repetitions.
    pub(crate) timeout: Duration,
}

impl Target {
    /// What table and environment say; `None` when neither names an endpoint.
    pub(crate) fn read(config: &OtlpConfig, environment: &Environment) -> Result<Option<Self>, String> {
        let named = environment.first(["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]);
        let protocol = match named {
            Some((name, text)) => protocol(text).map_err(|why| format!("{name}: {why}"))?,
            None => protocol(&config.protocol).map_err(|why| format!("protocol: {why}"))?,
        };
        let insecure = environment.first(["OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"]);
        let insecure = insecure.map_or(Ok(config.insecure), |(name, text)| environment.flag(name, text))?;
        let endpoint = environment.first(["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]);
        let configured = Some(("endpoint", config.endpoint.as_str())).filter(|(_, text)| !text.is_empty());
        let Some((name, text)) = endpoint.or(configured) else { return Ok(None) };
        let mut endpoint = url(text, insecure).map_err(|why| format!("{name}: {why}"))?;
        if protocol == Protocol::Http {
            endpoint = with_path(endpoint, name).map_err(|why| format!("{name}: {why}"))?;
        }
        let timeout = environment.first(["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"]);
        let timeout = timeout.map_or(Ok(TIMEOUT), |(name, text)| match text.parse() {
            Ok(milliseconds @ 1..) => Ok(Duration::from_millis(milliseconds)),
            _ => Err(format!("{name}: {text:?} is no number of milliseconds")),
        })?;
        Ok(Some(Self { protocol, endpoint, timeout }))
    }
}

/// The URL of traces. The variable for all signals names what their paths are below, the one for traces the URL itself, and
/// so does the table unless it has no path.
fn with_path(endpoint: Uri, name: &str) -> Result<Uri, String> {
    let path = endpoint.path().trim_end_matches('/');
    let path = match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => format!("{path}{TRACES}"),
        "endpoint" if path.is_empty() => TRACES.to_owned(),
        _ => return Ok(endpoint),
    };
    let mut parts = endpoint.into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).map_err(|error| error.to_string())?);
    Uri::from_parts(parts).map_err(|error| error.to_string())
}

/// Which traces are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sampling {
    /// Whether the caller decides about the traces that it began.
    pub(crate) by_parent: bool,
    /// Which part of the others is recorded.
    pub(crate) ratio: f64,
}

impl Sampling {
    pub(crate) fn read(config: &TracingConfig, environment: &Environment) -> Result<Self, String> {
        let Some(sampler) = environment.get("OTEL_TRACES_SAMPLER") else {
            return Ok(Self { by_parent: true, ratio: config.sampling_ratio.unwrap_or(1.0) });
        };
        let (by_parent, kind) = match sampler.strip_prefix("parentbased_") {
            Some(kind) => (true, kind),
            None => (false, sampler),
        };
        let ratio = match kind {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => {
                let text = environment.get("OTEL_TRACES_SAMPLER_ARG").unwrap_or("1");
                let ratio = text.parse().map_err(|_| format!("{text:?} is no number")).and_then(ratio_of);
                ratio.map_err(|why| format!("OTEL_TRACES_SAMPLER_ARG: {why}"))?
            }
            _ => {
                return Err(format!(
                    "OTEL_TRACES_SAMPLER: {sampler:?} is not always_on, always_off or traceidratio, and none of these after \
                     parentbased_"
                ));
            }
        };
        Ok(Self { by_parent, ratio })
    }
}

/// The name of the service that the table gives, unless the environment has another one, which OpenTelemetry's own code
/// reads.
pub(crate) fn service_name(config: &TracingConfig, environment: &Environment) -> Option<String> {
    let attributes = environment.get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let named =
        attributes.split(',').any(|one| one.split_once('=').is_some_and(|(key, _)| key.trim() == "service.name"));
    if named || environment.get("OTEL_SERVICE_NAME").is_some() {
        return None;
    }
    Some(if config.service_name.is_empty() { "keveld" } else { &config.service_name }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(set: &[(&str, &str)]) -> Environment {
        Environment::new(|name| {
            let name = name.strip_prefix(VARIABLE)?;
            set.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
        })
    }

    fn otlp(table: &str) -> Result<OtlpConfig, String> {
        toml::from_str(table).map_err(|error: toml::de::Error| error.message().to_owned())
    }

    #[test]
    fn endpoints() {
        let check = |table: &str, set: &[(&str, &str)], want: Result<Option<&str>, &str>| {
            let read = otlp(table).and_then(|config| Target::read(&config, &environment(set)));
            let told = read.map(|target| target.map(|target| target.endpoint.to_string()));
            match (told, want) {
                (Ok(told), Ok(want)) => assert_eq!(told.as_deref(), want, "{table} {set:?}"),
                (Err(told), Err(want)) => assert!(told.starts_with(want), "{table} {set:?}: {told}"),
                (told, want) => panic!("{table} {set:?}: {told:?}, not {want:?}"),
            }
        };
        const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
        check("", &[], Ok(None));
        check("", &[(ALL, " ")], Ok(None));
        check("", &[(ALL, "http://c:4318")], Ok(Some("http://c:4318/v1/traces")));
        check("", &[(ALL, "https://c/a/")], Ok(Some("https://c/a/v1/traces")));
        check("", &[(ALL, "http://c:4318"), (TRACES, "http://t/x")], Ok(Some("http://t/x")));
        check("", &[(ALL, "http://c:4317"), (PROTOCOL, "grpc")], Ok(Some("http://c:4317/")));
        check("endpoint = 'http://c:4318'", &[], Ok(Some("http://c:4318/v1/traces")));
        check("endpoint = 'http://c:4318/mine'", &[], Ok(Some("http://c:4318/mine")));
        check("endpoint = 'c:4317'\nprotocol = 'grpc'", &[], Ok(Some("https://c:4317/")));
        check("endpoint = 'c:4317'\nprotocol = 'grpc'\ninsecure = true", &[], Ok(Some("http://c:4317/")));
        check("endpoint = 'c:1'\ninsecure = true", &[(ALL, "http://e:2")], Ok(Some("http://e:2/v1/traces")));
        check("endpoint = 'ftp://x'", &[], Err("endpoint: \"ftp://x\" is not http"));
        check("endpoint = 'a b'", &[], Err("endpoint: \"a b\" is no URL"));
        check("protocol = 'http/json'", &[], Err("protocol: \"http/json\" is not http/protobuf or grpc"));
        check("insecure = 'yes'", &[], Err("invalid type"));
        check("", &[(ALL, "ftp://c")], Err("OTEL_EXPORTER_OTLP_ENDPOINT: \"ftp://c\""));
        check("", &[(PROTOCOL, "json")], Err("OTEL_EXPORTER_OTLP_PROTOCOL: \"json\""));
        check("", &[(ALL, "c:1"), ("OTEL_EXPORTER_OTLP_INSECURE", "maybe")], Err("OTEL_EXPORTER_OTLP_INSECURE: "));
        check("", &[(ALL, "c:1"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "0")], Err("OTEL_EXPORTER_OTLP_TIMEOUT: \"0\""));
    }

    #[test]
    fn which_traces() {
        let check = |table: &str, set: &[(&str, &str)], want: Result<(bool, f64), &str>| {
            let config = toml::from_str(table).map_err(|error: toml::de::Error| error.message().to_owned());
            let read = config.and_then(|config: TracingConfig| Sampling::read(&config, &environment(set)));
            match (read.map(|sampling| (sampling.by_parent, sampling.ratio)), want) {
                (Ok(told), Ok(want)) => assert_eq!(told, want, "{table} {set:?}"),
                (Err(told), Err(want)) => assert!(told.starts_with(want), "{table} {set:?}: {told}"),
                (told, want) => panic!("{table} {set:?}: {told:?}, not {want:?}"),
            }
        };
        const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
        const ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
        check("", &[], Ok((true, 1.0)));
        check("sampling_ratio = 0.25", &[], Ok((true, 0.25)));
        check("sampling_ratio = 0.25", &[(SAMPLER, "always_on")], Ok((false, 1.0)));
        check("", &[(SAMPLER, "parentbased_always_off")], Ok((true, 0.0)));
        check("", &[(SAMPLER, "traceidratio"), (ARG, "0.5")], Ok((false, 0.5)));
        check("sampling_ratio = 1.5", &[], Err("sampling_ratio: 1.5 is not between 0 and 1"));
        check("", &[(SAMPLER, "sometimes")], Err("OTEL_TRACES_SAMPLER: \"sometimes\""));
        check("", &[(SAMPLER, "traceidratio"), (ARG, "-1")], Err("OTEL_TRACES_SAMPLER_ARG: -1"));
    }

    #[test]
    fn what_the_environment_turns_off_and_what_it_names() {
        let off = |name, value| environment(&[(name, value)]).off();
        assert!(off("OTEL_SDK_DISABLED", "True").unwrap().is_some_and(|why| why.contains("OTEL_SDK_DISABLED")));
        assert_eq!(off("OTEL_SDK_DISABLED", "false"), Ok(None));
        assert!(off("OTEL_SDK_DISABLED", "yes").unwrap_err().starts_with("OTEL_SDK_DISABLED: \"yes\""));
        assert!(off("OTEL_TRACES_EXPORTER", "none").unwrap().is_some());
        assert!(off("OTEL_TRACES_EXPORTER", "zipkin").unwrap_err().starts_with("OTEL_TRACES_EXPORTER: \"zipkin\""));
        let ignored = environment(&[("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")]);
        assert_eq!(ignored.ignored().collect::<Vec<_>>(), ["OTEL_EXPORTER_OTLP_COMPRESSION"]);
        let name = |table: &str, set| service_name(&toml::from_str(table).unwrap(), &environment(set));
        assert_eq!(name("", &[]).as_deref(), Some("keveld"));
        assert_eq!(name("service_name = 'node'", &[]).as_deref(), Some("node"));
        assert_eq!(name("service_name = 'node'", &[("OTEL_SERVICE_NAME", "mine")]), None);
        assert_eq!(name("", &[("OTEL_RESOURCE_ATTRIBUTES", "a=b, service.name=mine")]), None);
    }
}
