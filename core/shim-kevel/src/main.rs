//! `containerd-shim-kevel-v1`: runs the tasks of one sandbox, or of one container, by any OCI runtime. One thread, and a
//! process per sandbox; the protocol and the plugin graph are `kevel-shim`'s.
//!
//! What is known of a container stands in its bundle ([`record`]), so that `delete` can end it when this process is gone.
//! Where to look: [`tasks`] is the service, [`container`] and [`process`] are what it serves, [`runtime`] runs the OCI
//! runtime, [`io`] carries standard streams.

mod checkpoint;
mod cleanup;
mod container;
mod device;
mod error;
mod execs;
mod exit;
mod io;
mod options;
mod plugin;
mod process;
mod record;
mod runtime;
mod shim;
mod spec;
mod stats;
mod tasks;

use std::process::ExitCode;

fn main() -> ExitCode {
    kevel_shim::main(shim::Kevel)
}
