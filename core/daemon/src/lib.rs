//! The daemon: configuration, the list of plugins, listeners, metrics and signals. It knows every other crate of the
//! core and the CRI plugin; nobody knows it. The binary is `keveld`.

mod boot;
mod builtins;
mod cgroup;
pub mod cli;
mod config;
mod logging;
mod memory;
mod metrics;
mod oom;
mod process;
mod publish;
mod reload;
mod server;
mod show;
mod timeouts;
mod traces;

use cli::{Cli, Command};

pub use traces::Traces;

/// Runs what the command line says; answers when it is done. A build that exports traces brings along by what.
pub fn main(cli: Cli, traces: Option<Traces>) -> anyhow::Result<()> {
    match &cli.command {
        None => boot::run(&cli, traces),
        Some(Command::Config { command }) => show::run(&cli, *command, traces),
        Some(Command::Publish { namespace, topic }) => publish::run(&cli, namespace, topic),
    }
}
