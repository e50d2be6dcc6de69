//! `keveld config default|dump|migrate`.

use std::{fs, io::Write as _};

use anyhow::Context as _;

use crate::{
    Traces, boot, builtins,
    cli::{Cli, ConfigCommand},
    config::{self, Config},
};

/// Prints the configuration that was asked for.
pub(crate) fn run(cli: &Cli, command: ConfigCommand, traces: Option<Traces>) -> anyhow::Result<()> {
    let document = match command {
        ConfigCommand::Default => config::default_document(&Config::default(), &builtins::registry(traces))?,
        ConfigCommand::Dump => {
            let loaded = boot::configuration(cli)?;
            config::default_document(&loaded.config, &builtins::registry(traces))?
        }
        ConfigCommand::Migrate => {
            let text = fs::read_to_string(&cli.config).with_context(|| format!("reading {}", cli.config.display()))?;
            let document: toml::Table = text.parse().with_context(|| format!("parsing {}", cli.config.display()))?;
            let (document, warnings) =
                config::migrate(document).with_context(|| format!("migrating {}", cli.config.display()))?;
            for warning in warnings {
                eprintln!("keveld: {warning}");
            }
            document
        }
    };
    std::io::stdout().write_all(toml::to_string(&document)?.as_bytes())?;
    Ok(())
}
