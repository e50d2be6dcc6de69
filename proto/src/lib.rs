//! The wire and nothing else: protobuf messages, gRPC clients and servers, ttrpc method names, and the rules of `Any`.
//!
//! Modules are nested as the protobuf packages are: `containerd.services.content.v1.Content` lives in
//! [`containerd::services::content::v1`], the CRI (`runtime.v1`) in [`runtime::v1`]. The sources are the `.proto` files
//! in `proto/proto`; `cargo xtask codegen` turns them into the checked-in files in `src/gen`. Converting between these
//! types and Kevel's own is the business of those who speak the wire (`service`, `client`, `cri/server`), and ttrpc
//! framing that of `kevel-ttrpc`.

pub mod any;
mod secret;
pub mod shim;

#[path = "gen/mod.rs"]
#[allow(
    clippy::all,
    clippy::restriction,
    deprecated,
    missing_docs,
    rustdoc::all,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code follows its generators' taste"
)]
mod generated;

pub use generated::{containerd, google, grpc, io, nri, runtime, runtimeoptions};

/// The largest gRPC message that is sent or accepted, in bytes: what kubelet and containerd allow. tonic's own limit
/// for received messages is 4 MiB, too small for the container list of a full node.
pub const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;
