//! The command line: containerd's flags and subcommands under their names.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::DEFAULT_CONFIG_PATH;

/// Kevel, a Kubernetes node runtime.
#[derive(Debug, Parser)]
#[command(name = "keveld", version, about, disable_help_subcommand = true)]
pub struct Cli {
    /// Path to the configuration file
    #[arg(short, long, default_value = DEFAULT_CONFIG_PATH, env = "KEVEL_CONFIG")]
    pub config: PathBuf,
    /// Log level: trace, debug, info, warn, error
    #[arg(short, long)]
    pub log_level: Option<String>,
    /// Address of the gRPC socket
    #[arg(short, long)]
    pub address: Option<String>,
    /// Directory of persistent state
    #[arg(long)]
    pub root: Option<PathBuf>,
    /// Directory of state that a reboot may lose
    #[arg(long)]
    pub state: Option<PathBuf>,
    /// What to do; runs the daemon when left out
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What else the binary does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show configurations
    Config {
        /// Which one
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Publish an event that is read from standard input, for shims that can't do it themselves
    Publish {
        /// Namespace to publish in
        #[arg(long)]
        namespace: String,
        /// Topic of the event
        #[arg(long)]
        topic: String,
    },
}

/// Which configuration to show.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ConfigCommand {
    /// The one that a daemon without a file runs with
    Default,
    /// The one that this daemon would run with, everything merged in
    Dump,
    /// The file, rewritten into the current version
    Migrate,
}
