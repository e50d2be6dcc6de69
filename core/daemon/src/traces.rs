//! Traces, as far as every build has to do with them: how a build that has them brings them in, and what one without says
//! where traces are asked for. The exporter is `kevel-otlp`'s.

use std::{env, fmt, marker::PhantomData};

use kevel_plugin::{InitContext, InitError, Kind, Plugin};
use tracing_subscriber::{
    Layer,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::config::Config;

/// What a build with traces brings along: the functions of `kevel-otlp`.
#[derive(Clone, Copy)]
pub struct Traces {
    /// The layer that collects spans.
    pub layer: fn() -> Box<dyn Layer<tracing_subscriber::Registry> + Send + Sync>,
    /// Adds the plugins.
    pub register: fn(&mut kevel_plugin::Registry),
    /// Trace and span that the thread works for.
    pub current: fn() -> Option<[String; 2]>,
}

/// The properties by which plugins know OpenTelemetry's variables of the environment.
pub(crate) fn properties() -> impl Iterator<Item = (String, String)> {
    let known = env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    known
        .filter(|(name, _)| name.starts_with("OTEL_"))
        .map(|(name, value)| (format!("io.kevel.plugin.environment.{name}"), value))
}

/// Says what a build without traces does not act on.
pub(crate) fn warn(config: &Config) {
    if config.debug.log_trace_id {
        tracing::warn!("debug.log_trace_id: keveld is built without the feature otlp; log lines have no trace ids");
    }
}

/// Adds the plugins, or what says that they are not here.
pub(crate) fn register(registry: &mut kevel_plugin::Registry, traces: Option<Traces>) {
    match traces {
        Some(traces) => (traces.register)(registry),
        None => {
            registry.add::<Absent<Processor>>().add::<Absent<Tracer>>();
        }
    }
}

/// A plugin that is in other builds. It takes every table, and says that traces are not exported if they are asked for.
struct Absent<Which>(PhantomData<Which>);

trait Named: 'static {
    const TYPE: &'static str;
    const ID: &'static str;
}

/// `io.containerd.tracing.processor.v1.otlp`.
struct Processor;

impl Named for Processor {
    const TYPE: &'static str = "io.containerd.tracing.processor.v1";
    const ID: &'static str = "otlp";
}

/// `io.containerd.internal.v1.tracing`.
struct Tracer;

impl Named for Tracer {
    const TYPE: &'static str = "io.containerd.internal.v1";
    const ID: &'static str = "tracing";
}

impl<Which: Named> Kind for Absent<Which> {
    const TYPE: &'static str = Which::TYPE;
    type Handle = ();
}

impl<Which: Named> Plugin for Absent<Which> {
    type Kind = Self;
    const ID: &'static str = Which::ID;
    type Config = toml::Table;
    type Deps = ();

    async fn init(cx: InitContext, config: toml::Table, (): ()) -> Result<(), InitError> {
        let variables = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
        let property = |name: &str| cx.property(&format!("io.kevel.plugin.environment.{name}")).map(str::to_owned);
        let table = config.get("endpoint").and_then(toml::Value::as_str).map(str::to_owned);
        let endpoint = variables.into_iter().find_map(property).or(table).filter(|endpoint| !endpoint.is_empty());
        if let (Some(endpoint), "otlp") = (endpoint, Which::ID) {
            tracing::warn!(endpoint, "keveld is built without the feature otlp: no traces are exported");
        }
        Err(InitError::Skip("keveld is built without the feature otlp".to_owned()))
    }
}

/// Adds trace and span to the lines of what is traced.
pub(crate) struct WithTrace<F> {
    pub(crate) inner: F,
    pub(crate) current: fn() -> Option<[String; 2]>,
}

impl<S, N, F> FormatEvent<S, N> for WithTrace<F>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        let Some([trace, span]) = (self.current)() else { return self.inner.format_event(context, writer, event) };
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        // A line is an object, or text.
        match line.strip_prefix('{').and(line.strip_suffix('}')) {
            Some(fields) => writeln!(writer, r#"{fields},"trace_id":"{trace}","span_id":"{span}"}}"#),
            None => writeln!(writer, "{line} trace_id={trace} span_id={span}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::{fmt, layer::SubscriberExt as _};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(text)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn current() -> Option<[String; 2]> {
        Some(["4bf9".to_owned(), "00f0".to_owned()])
    }

    #[test]
    fn lines_name_their_traces() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = fmt::layer().with_writer(move || writer.clone()).with_ansi(false).without_time();
        let json = layer.json().map_event_format(|inner| WithTrace { inner, current });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(json), || tracing::info!(a = 1, "b"));
        let writer = lines.clone();
        let layer = fmt::layer().with_writer(move || writer.clone()).with_ansi(false).without_time();
        let text = layer.map_event_format(|inner| WithTrace { inner, current: || None });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(text), || tracing::info!("c"));
        let writer = lines.clone();
        let layer = fmt::layer().with_writer(move || writer.clone()).with_ansi(false).without_time();
        let text = layer.map_event_format(|inner| WithTrace { inner, current });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(text), || tracing::info!("{{d}}"));
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let object: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
        assert_eq!((&object["trace_id"], &object["span_id"]), (&"4bf9".into(), &"00f0".into()), "{text}");
        assert!(lines[1].ends_with(": c") && lines[2].ends_with("{d} trace_id=4bf9 span_id=00f0"), "{text}");
    }
}
