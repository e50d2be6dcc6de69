//! The stream processors as a plugin. Its table is the top-level table `stream_processors` of the configuration.

use std::collections::BTreeMap;

use kevel_plugin::{InitContext, InitError};

use super::{Processor, Processors, StreamProcessors};

/// Registers the processors.
pub struct Plugin;

impl kevel_plugin::Plugin for Plugin {
    type Kind = StreamProcessors;
    const ID: &'static str = "stream-processors";
    type Config = BTreeMap<String, Processor>;
    type Deps = ();

    async fn init(_: InitContext, config: BTreeMap<String, Processor>, (): ()) -> Result<Processors, InitError> {
        Processors::new(config).map_err(|message| InitError::Config { uri: "stream_processors".to_owned(), message })
    }
}
