//! `keveld` as it is built with the feature `otlp`. The tests have it from here, beside the one without: a second build of
//! the daemon's crates would cost them minutes.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let (layer, register, current) = (kevel_otlp::layer, kevel_otlp::register, kevel_otlp::current);
    let traces = kevel_daemon::Traces { layer, register, current };
    match kevel_daemon::main(kevel_daemon::cli::Cli::parse(), Some(traces)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keveld: {error:#}");
            ExitCode::FAILURE
        }
    }
}
