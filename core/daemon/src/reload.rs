//! SIGHUP: the configuration is read anew, and what can change while pods run changes: the log level and the tables of
//! plugins that take on another one. All else is named as waiting for the next start. A configuration that the daemon
//! would not start with changes nothing.

use anyhow::Context as _;
use kevel_plugin::{Graph, Reloaded};
use sd_notify::NotifyState;

use crate::{
    Traces, boot,
    cli::Cli,
    config::Config,
    logging::{self, Level},
};

/// What a running daemon was started with.
pub(crate) struct Reloader<'a> {
    pub(crate) cli: &'a Cli,
    pub(crate) started: Config,
    pub(crate) level: Level,
    pub(crate) traces: Option<Traces>,
}

impl Reloader<'_> {
    /// Does it and logs how it went.
    pub(crate) fn reload(&self, graph: &mut Graph) {
        // systemd wants the time with the first message, or takes the second for that of an earlier reload.
        let started = [NotifyState::Reloading].into_iter().chain(NotifyState::monotonic_usec_now());
        let _ = sd_notify::notify(&started.collect::<Vec<_>>());
        match self.look(graph) {
            Ok(Reloaded { changed, restart }) => {
                for what in &restart {
                    tracing::warn!(what, "a changed configuration waits for the next start");
                }
                tracing::info!(?changed, waiting = restart.len(), "configuration reloaded");
            }
            Err(error) => tracing::error!(
                error = format!("{error:#}"),
                "the configuration is wrong; the daemon goes on with the one before"
            ),
        }
        let _ = sd_notify::notify(&[NotifyState::Ready]);
    }

    fn look(&self, graph: &mut Graph) -> anyhow::Result<Reloaded> {
        let loaded = boot::configuration(self.cli)?;
        let config = &loaded.config;
        logging::check(&config.debug)?;
        let checked = boot::registry(config, self.traces)?.check(boot::settings(config))?;
        boot::warn(&loaded, self.traces);
        let mut done = graph.reload(&checked)?;
        self.level.set(&config.debug);
        done.restart.extend(waiting(&self.started, config).context("comparing configurations")?);
        Ok(done)
    }
}

/// Keys outside of plugins that are changed and that only a start reads.
fn waiting(started: &Config, now: &Config) -> Result<Vec<String>, toml::ser::Error> {
    let keys = |config: &Config| {
        let mut keys = toml::Table::try_from(config)?;
        // Plugins have said what they do about theirs; which files were read is no setting.
        for done in ["plugins", "disabled_plugins", "stream_processors", "imports", "version"] {
            keys.remove(done);
        }
        if let Some(debug) = keys.get_mut("debug").and_then(toml::Value::as_table_mut) {
            debug.remove("level");
        }
        Ok::<_, toml::ser::Error>(keys)
    };
    let (before, after) = (keys(started)?, keys(now)?);
    Ok(after.into_iter().filter(|(key, value)| before.get(key) != Some(value)).map(|(key, _)| key).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_named() {
        let changed = |change: fn(&mut Config)| {
            let mut now = Config::default();
            change(&mut now);
            waiting(&Config::default(), &now).unwrap()
        };
        assert!(changed(|now| now.debug.level = "debug".to_owned()).is_empty());
        assert_eq!(changed(|now| now.debug.format = "json".to_owned()), ["debug"]);
        assert_eq!(changed(|now| now.oom_score = 1), ["oom_score"]);
        assert_eq!(changed(|now| now.root = "/elsewhere".into()), ["root"]);
    }
}
