//! Every builtin plugin of the daemon, a line each: the whole node on one page. The order of the lines breaks ties in the
//! order of their start.

use kevel_plugin::Registry;

use crate::{Traces, metrics, server, traces};

/// The builtin plugins.
pub(crate) fn registry(exporter: Option<Traces>) -> Registry {
    let mut registry = Registry::default();
    // Where everybody's metrics are, and who collects traces.
    registry.add::<metrics::Prometheus>();
    traces::register(&mut registry, exporter);
    registry
        // What is on disk.
        .add::<kevel_content::Plugin>()
        .add::<kevel_event::Plugin>()
        .add::<kevel_snapshot::native::Plugin>()
        .add::<kevel_snapshot::overlay::Plugin>()
        .add::<kevel_metadata::Plugin>()
        .add::<kevel_metadata::Scheduler>()
        .add::<kevel_metadata::LeasePlugin>()
        .add::<kevel_diff::processor::Plugin>()
        .add::<kevel_diff::walking::Plugin>()
        .add::<kevel_transfer::verifier::Plugin>()
        .add::<kevel_transfer::Plugin>()
        // What runs.
        .add::<kevel_runtime::plugin::Manager>()
        .add::<kevel_runtime::plugin::TaskRuntime>()
        .add::<kevel_runtime::plugin::Service>()
        .add::<kevel_runtime::plugin::Controller>()
        .add::<kevel_monitor::Plugin>();
    // What serves clients: the core services, each with its plugin in kevel-service, then CRI.
    kevel_service::register(&mut registry);
    kevel_cri_server::plugin::register(&mut registry);
    // Where clients reach it.
    registry
        .add::<server::GrpcCounter>()
        .add::<server::Metrics>()
        .add::<server::Ttrpc>()
        .add::<server::Grpc>()
        .add::<server::GrpcTcp>()
        .add::<server::Debug>();
    registry
}
