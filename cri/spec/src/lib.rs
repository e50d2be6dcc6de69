//! From a pod, a container, an image and the facts of the node to an OCI runtime spec.
//!
//! Pure: nothing here opens a file, and the same input gives the same bytes. Looking up users in the image, following
//! symbolic links of mounts, loading security profiles and relabelling are the caller's. The rules are those of
//! containerd 2.4's CRI plugin, because kubelet, Kata and gVisor were built against them; where Kevel differs, the
//! function says so.
//!
//! * [`sandbox`] makes the spec of the pause container, [`container`] that of a container in a pod;
//! * [`exec`] makes the process for another command in a container, [`update`] changes the limits;
//! * [`stop_signal`], [`user_string`] read what requests and images spell.

mod annotation;
mod base;
mod capability;
mod cgroup;
mod container;
mod device;
mod document;
mod error;
mod input;
mod mount;
mod namespace;
mod process;
mod resources;
mod sandbox;
mod seccomp;
mod security;
mod signal;
mod user;

pub use self::{
    annotation::{CONTAINER_NAME, CONTAINER_TYPE, IMAGE_NAME, SANDBOX_ID, SANDBOX_IMAGE_NAME, SANDBOX_LOG_DIRECTORY},
    annotation::{SANDBOX_NAME, SANDBOX_NAMESPACE, SANDBOX_UID},
    container::{ContainerInput, container},
    document::Spec,
    error::{Error, Result},
    input::{
        Capabilities, Container, Device, DeviceNode, GroupsPolicy, Handler, IdMapping, ImageConfig, Mode, Mount,
        Namespaces, Node, Pod, Policy, Profile, Propagation, Resources, SandboxPaths, Selinux, Sharing, User,
        UserNamespace,
    },
    mount::relabels,
    process::exec,
    resources::update,
    sandbox::{SandboxInput, sandbox},
    signal::stop_signal,
    user::user_string,
};
