//! What one writes a shim with: a program that a daemon starts for a container or a sandbox, and talks to over ttrpc.
//!
//! A shim implements [`Shim`] and hands itself to [`main`], which speaks the protocol with daemons from containerd 1.6 on:
//! `start` (parameters, the socket, groups, the answer in the daemon's dialect), `delete`, `-info`, `-v`, and serving. What
//! a shim serves are plugins of the same typed graph as the daemon's: this crate adds those that every shim has
//! ([`Shutdowns`], [`Reapers`], [`Publishers`]), the shim adds its own, and each that offers [`Services`] is served. One
//! that skips is left out; a shim without the task service is as good as any.
//!
//! ```no_run
//! use std::{process::ExitCode, sync::Arc};
//! use kevel_plugin::{InitContext, InitError, Plugin, Registry};
//! use kevel_proto::containerd::types::RuntimeInfo;
//! use kevel_shim::{Deleted, Delete, Error, Info, Services, Shim, TtrpcServices, sandbox::{Sandboxes, services}};
//!
//! struct Nothing;
//! impl Sandboxes for Nothing {}
//!
//! struct SandboxPlugin;
//! impl Plugin for SandboxPlugin {
//!     type Kind = TtrpcServices;
//!     const ID: &'static str = "sandbox";
//!     type Config = ();
//!     type Deps = ();
//!     async fn init(_: InitContext, (): (), (): ()) -> Result<Services, InitError> {
//!         Ok(services(Arc::new(Nothing)))
//!     }
//! }
//!
//! struct Example;
//! impl Shim for Example {
//!     const NAME: &'static str = "io.example.nothing.v1";
//!     const VERSION: &'static str = "1.0";
//!     fn plugins(&self, registry: &mut Registry) { registry.add::<SandboxPlugin>(); }
//!     fn delete(&self, _: &Delete) -> Result<Deleted, Error> { Ok(Deleted::killed(0)) }
//!     fn info(&self, _: &Info) -> Result<RuntimeInfo, Error> { Ok(RuntimeInfo::default()) }
//! }
//!
//! fn main() -> ExitCode { kevel_shim::main(Example) }
//! ```
//!
//! What does not live here: any container, any OCI runtime, standard streams of containers.

mod bundle;
mod command;
mod error;
mod event;
mod group;
mod inherit;
mod launch;
mod log;
mod plugin;
mod reaper;
mod reply;
mod run;
mod sched;
mod score;
mod serve;
mod service;
mod shutdown;
mod socket;
mod start;

pub use bundle::{read_small, write_small};
pub use command::Facts;
pub use error::Error;
pub use event::Publisher;
pub use group::GROUPS;
pub use plugin::{Identity, PublisherPlugin, Publishers, ReaperPlugin, Reapers, Shutdowns, TtrpcServices};
pub use reaper::{Child, Exit, Hold, Reaper};
pub use run::{Delete, Deleted, Info, Shim, main};
pub use service::{Services, sandbox, task};
pub use shutdown::Shutdown;
pub use start::Start;
