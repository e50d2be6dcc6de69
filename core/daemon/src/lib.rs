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

use cli::{Cli, Command};

/// Runs what the command line says; answers when it is done.
pub fn main(cli: Cli) -> anyhow::Result<()> {
    match &cli.command {
        None => boot::run(&cli),
        Some(Command::Config { command }) => show::run(&cli, *command),
        Some(Command::Publish { namespace, topic }) => publish::run(&cli, namespace, topic),
    }
}
