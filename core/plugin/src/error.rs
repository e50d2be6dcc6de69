//! Why a plugin did not start, and why a whole graph can't.

/// Why one plugin did not start. The rest of the graph goes on.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The plugin chose not to run on this node; no fault.
    #[error("skip plugin: {0}")]
    Skip(String),
    /// Nothing of a required type started.
    #[error("no plugin of type {0} started")]
    Missing(&'static str),
    /// More than one plugin of a type of which one was required.
    #[error("{1} plugins of type {0} started where one is needed; disable all but one")]
    Ambiguous(&'static str, usize),
    /// Its table in the configuration is wrong.
    #[error("configuration of {uri}: {message}")]
    Config {
        /// The plugin.
        uri: String,
        /// Which key and why.
        message: String,
    },
    /// Anything else.
    #[error(transparent)]
    Failed(#[from] Box<dyn std::error::Error + Send + Sync>),
}

impl InitError {
    /// A failure from any error.
    pub fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }

    /// The message with its causes, joined by `: `.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// An error's message with its causes, joined by `: `.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        out.push_str(": ");
        out.push_str(&error.to_string());
        next = error.source();
    }
    out
}

/// Why a graph can't start at all.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GraphError {
    /// Two plugins of one URI.
    #[error("plugin {0} is registered twice")]
    Duplicate(String),
    /// Plugins that need each other.
    #[error("plugins need each other: {}", .0.join(" -> "))]
    Loop(Vec<String>),
    /// A type that a plugin needs and of which none is registered.
    #[error("plugin {plugin} needs a plugin of type {needs}, of which there is none")]
    Missing {
        /// Who needs it.
        plugin: String,
        /// What it needs.
        needs: &'static str,
    },
    /// A plugin that the configuration requires did not start.
    #[error("required plugin {uri} did not start: {why}")]
    Required {
        /// The plugin.
        uri: String,
        /// Why not.
        why: String,
    },
    /// A plugin that the configuration requires or disables is no URI.
    #[error("{key}: {uri:?} is not a plugin URI such as io.containerd.grpc.v1.cri")]
    NotAUri {
        /// The configuration key.
        key: &'static str,
        /// What stands there.
        uri: String,
    },
    /// A wrong value in a plugin's table.
    #[error("configuration of {uri}: {message}")]
    Config {
        /// The plugin.
        uri: String,
        /// Which key and why.
        message: String,
    },
}
