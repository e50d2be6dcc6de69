//! Kubernetes' view of the node: CRI v1 over the contracts of the core services.
//!
//! Reading order:
//! - [`plugin`] is what the daemon registers: configuration plugins, the `podsandbox` controller, and the CRI itself;
//! - `service` holds the two gRPC services, which only unpack a request and hand it on;
//! - `sandbox`, `container`, `image` and `runtime` have a file for each RPC;
//! - `record` says what is kept on disk, `index` what is kept in memory, `recover` how the one becomes the other;
//! - `check` refuses bad requests before anything happens, `translate` turns good ones into the input of `kevel-cri-spec`.
//!
//! Not here: the OCI spec itself (`kevel-cri-spec`), CNI (`kevel-cri-network`), the log format (`kevel-cri-logs`), and
//! every implementation of a core service.

mod answer;
mod apparmor;
mod check;
mod checkpoint;
pub mod config;
mod container;
mod controller;
mod counters;
mod event;
mod files;
mod identity;
mod image;
mod index;
mod intent;
mod live;
mod lock;
mod metric;
mod node;
mod nri;
mod operation;
mod patience;
pub mod plugin;
mod reach;
mod record;
mod recover;
mod rootfs;
mod runtime;
mod sandbox;
mod selinux;
mod server;
mod service;
mod translate;
mod undo;
mod usage;
mod userns;
mod volatile;

pub use image::{ImageParts, Images};
pub use server::{Parts, Server, Settings};
pub use service::{ImageRpc, RuntimeRpc, StreamingRuntime, image_service, runtime_service};
