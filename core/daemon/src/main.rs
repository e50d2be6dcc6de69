//! `keveld`: reads the command line and hands over, with the exporter of traces in builds that have it.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match kevel_daemon::main(kevel_daemon::cli::Cli::parse(), traces()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keveld: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(feature = "otlp"))]
fn traces() -> Option<kevel_daemon::Traces> {
    None
}

#[cfg(feature = "otlp")]
fn traces() -> Option<kevel_daemon::Traces> {
    let (layer, register, current) = (kevel_otlp::layer, kevel_otlp::register, kevel_otlp::current);
    Some(kevel_daemon::Traces { layer, register, current })
}
