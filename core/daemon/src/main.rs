//! `keveld`: reads the command line and hands over.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match kevel_daemon::main(kevel_daemon::cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keveld: {error:#}");
            ExitCode::FAILURE
        }
    }
}
