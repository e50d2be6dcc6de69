//! The differ as a plugin: `io.containerd.differ.v1.walking`.

use kevel_contract::{
    call::Target,
    diff::{Differ, Differs},
    metadata::Metadata,
};
use kevel_model::Platform;
use kevel_plugin::{InitContext, InitError, Maybe, One, deps};

use super::Walking;
use crate::StreamProcessors;

deps! {
    /// What the differ needs.
    pub struct Needs { metadata: One<Metadata>, processors: Maybe<StreamProcessors> }
}

/// Registers the differ.
pub struct Plugin;

impl kevel_plugin::Plugin for Plugin {
    type Kind = Differs;
    const ID: &'static str = "walking";
    type Config = ();
    type Deps = Needs;

    async fn init(cx: InitContext, (): (), needs: Needs) -> Result<Differ, InitError> {
        cx.platform(Platform::host().to_string());
        let mounts = cx.state.join("mounts");
        let left = mounts.clone();
        tokio::task::spawn_blocking(move || kevel_mount::clean_temp_mounts(&left))
            .await
            .map_err(InitError::failed)?
            .map_err(InitError::failed)?;
        let walking = Walking::new(needs.metadata.content.clone(), mounts);
        let walking = walking.with_processors(needs.processors.0.unwrap_or_default());
        Ok(Differ::new(Target::local("differ walking"), walking))
    }
}
