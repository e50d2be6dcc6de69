//! `io.containerd.cri.v1.runtime`.

use std::sync::Arc;

use kevel_plugin::{InitContext, InitError, Kind, Plugin, Reload};

use super::{DIR, ROOT, STATE, property};
use crate::{config::RuntimeConfig, files::blocking, server::Settings};

/// How the CRI runs pods: `io.containerd.cri.v1.runtime`.
pub enum CriRuntime {}

impl Kind for CriRuntime {
    const TYPE: &'static str = "io.containerd.cri.v1";
    type Handle = Arc<Settings>;
}

/// The plugin.
pub struct RuntimePlugin;

impl Plugin for RuntimePlugin {
    type Kind = CriRuntime;
    const ID: &'static str = "runtime";
    type Config = RuntimeConfig;
    type Deps = ();

    async fn init(cx: InitContext, config: RuntimeConfig, (): ()) -> Result<Arc<Settings>, InitError> {
        cx.export("CRIVersion", "v1");
        let (root, state) = (property(&cx, ROOT)?.join(DIR), property(&cx, STATE)?.join(DIR));
        let undo = cx.property("io.containerd.timeout.cri.defercleanup").and_then(kevel_model::duration::parse);
        let settings = blocking(move || {
            let settings = Settings::new(config, root, state)?;
            Ok(match undo {
                Some(limit) => settings.with_defer_cleanup(limit),
                None => settings,
            })
        })
        .await;
        let settings = settings.map(Arc::new).map_err(|error| wrong_in(&cx.uri, &error))?;
        let (running, uri) = (settings.clone(), cx.uri.clone());
        cx.on_reload(move |config| look(&running, &config).map_err(|error| wrong_in(&uri, &error)));
        Ok(settings)
    }
}

fn wrong_in(uri: &str, error: &kevel_model::Error) -> InitError {
    InitError::Config { uri: uri.to_owned(), message: error.chain() }
}

/// What another table changes while pods run: the handlers. All else is named.
fn look(running: &Arc<Settings>, config: &RuntimeConfig) -> kevel_model::Result<Reload> {
    config.check()?;
    config.stats_period()?;
    let (handlers, left) = running.handlers().changed(&config.containerd)?;
    let started = RuntimeConfig { containerd: config.containerd.clone(), ..running.config.clone() };
    let (started, wanted) = (keys(&started), keys(config));
    let other = wanted.into_iter().filter(|(key, value)| started.get(key) != Some(value)).map(|(key, _)| key);
    let settings = running.clone();
    Ok(Reload::new(move || settings.set_handlers(handlers)).leaving(left.into_iter().chain(other)))
}

fn keys(config: &RuntimeConfig) -> toml::Table {
    toml::Table::try_from(config).unwrap_or_default()
}
