//! `io.containerd.cri.v1.runtime`.

use std::sync::Arc;

use kevel_plugin::{InitContext, InitError, Kind, Plugin};

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
        let wrong = |error: kevel_model::Error| InitError::Config { uri: cx.uri.clone(), message: error.chain() };
        settings.map(Arc::new).map_err(wrong)
    }
}
