//! From a spec to the steps that the container's process takes, and what its parent does meanwhile. Everything that can be
//! found wrong is found here, before anything is made.

mod devices;
mod mounts;
mod namespaces;
pub(crate) mod options;
pub(crate) mod process;
mod root;

use std::{
    ffi::CString,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
};

use oci_spec::runtime::{Linux, LinuxIdMapping, Spec};

pub(crate) use self::{namespaces::Namespaces, process::Limit, root::hook};
use crate::{
    Options,
    cgroup::{Cgroup, Layout},
    child::{Op, Program},
    error::{Error, Result},
};

/// What it takes to start a process.
pub(crate) struct Plan {
    pub(crate) program: Program,
    /// The first clone's.
    pub(crate) clone_flags: u64,
    /// A pid namespace that the process is born into.
    pub(crate) pid_namespace: Option<OwnedFd>,
    /// The root file system, detached.
    pub(crate) root: Option<OwnedFd>,
    pub(crate) uid_map: String,
    pub(crate) gid_map: String,
    pub(crate) limits: Vec<Limit>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) oom_clamp: bool,
    /// Descriptors that steps name by number.
    pub(crate) held: Vec<OwnedFd>,
    /// Set if the environment gets a `HOME`: how many slots that takes.
    pub(crate) home_slots: usize,
}

/// What the planning of a container has in hand.
pub(crate) struct Request<'a> {
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Path,
    pub(crate) spec: &'a Spec,
    pub(crate) linux: &'a Linux,
    pub(crate) options: &'a mut Options,
    pub(crate) layout: &'a Layout,
    pub(crate) cgroup: &'a Cgroup,
}

/// Plans a container.
pub(crate) fn container(mut request: Request<'_>) -> Result<Plan> {
    let spec = request.spec;
    let namespaces = Namespaces::new(request.linux)?;
    let process = spec.process().as_ref().ok_or_else(|| Error::invalid("process", "is missing"))?;
    namespaces.check(spec, request.linux)?;
    let mut plan = Plan {
        program: Program::default(),
        clone_flags: 0,
        pid_namespace: None,
        root: None,
        uid_map: map(request.linux.uid_mappings(), "linux.uidMappings")?,
        gid_map: map(request.linux.gid_mappings(), "linux.gidMappings")?,
        limits: Vec::new(),
        oom_score_adj: process.oom_score_adj(),
        oom_clamp: request.options.clamp_oom_score_adj,
        held: Vec::new(),
        home_slots: 0,
    };
    if !request.cgroup.unified {
        plan.program.push(crate::cgroup::FIELD, Op::JoinCgroups(request.cgroup.procs()?));
    }
    let user = namespaces.user();
    namespaces.steps(&mut plan, request.linux)?;
    plan.program.push("process", Op::Session);
    if !request.options.no_new_keyring {
        plan.program.push("process", Op::Keyring(text(&format!("_ses.{}", request.id), "id")?));
    }
    names(&mut plan, spec, request.linux)?;
    root::steps(&mut plan, &mut request, user)?;
    let context =
        process::Context { user, maps: (request.linux.uid_mappings(), request.linux.gid_mappings()), init: true };
    process::settings(&mut plan, request.linux)?;
    process::steps(&mut plan, process, request.linux.seccomp().as_ref(), request.options, &context)?;
    root::start_hooks(&mut plan, &request)?;
    process::exec(&mut plan, process, request.options)?;
    Ok(plan)
}

/// Names and kernel settings of the new namespaces.
fn names(plan: &mut Plan, spec: &Spec, linux: &Linux) -> Result<()> {
    if let Some(name) = spec.hostname().as_ref().filter(|name| !name.is_empty()) {
        plan.program.push("hostname", Op::Hostname(name.clone().into_bytes()));
    }
    if let Some(name) = spec.domainname().as_ref().filter(|name| !name.is_empty()) {
        plan.program.push("domainname", Op::Domainname(name.clone().into_bytes()));
    }
    for (key, value) in linux.sysctl().iter().flatten() {
        let field = format!("linux.sysctl[{key:?}]");
        let path = namespaces::sysctl_path(key, &field)?;
        plan.program.push(
            field.clone(),
            Op::Proc { path: text(&path, &field)?, text: value.clone().into_bytes(), optional: false },
        );
    }
    Ok(())
}

/// The text of an id map for the kernel.
fn map(mappings: &Option<Vec<LinuxIdMapping>>, field: &str) -> Result<String> {
    let mut text = String::new();
    for (at, one) in mappings.iter().flatten().enumerate() {
        if one.size() == 0 {
            return Err(Error::invalid(format!("{field}[{at}].size"), "is zero"));
        }
        text.push_str(&format!("{} {} {}\n", one.container_id(), one.host_id(), one.size()));
    }
    Ok(text)
}

/// Text for the kernel.
pub(crate) fn text(text: &str, field: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::invalid(field, "has a NUL in it"))
}

/// A path for the kernel.
pub(crate) fn path(path: &Path, field: &str) -> Result<CString> {
    CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| Error::invalid(field, "has a NUL in it"))
}

/// A path inside the container: absolute (a relative one is taken from the root), without `.` and `..`.
pub(crate) fn inside(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Plans one more process in a container that runs.
pub(crate) fn process(
    target: &Target<'_>,
    process: &oci_spec::runtime::Process,
    options: &mut Options,
) -> Result<Plan> {
    let mut plan = Plan {
        program: Program::default(),
        clone_flags: 0,
        pid_namespace: None,
        root: None,
        uid_map: String::new(),
        gid_map: String::new(),
        limits: Vec::new(),
        oom_score_adj: process.oom_score_adj(),
        oom_clamp: options.clamp_oom_score_adj,
        held: Vec::new(),
        home_slots: 0,
    };
    if !target.cgroup.unified {
        plan.program.push(crate::cgroup::FIELD, Op::JoinCgroups(target.cgroup.procs()?));
    }
    let user = namespaces::join(&mut plan, target.pid)?;
    plan.program.push("process", Op::Session);
    if process.terminal() == Some(true) {
        let size = process.console_size().unwrap_or_default();
        let (width, height) = (size.width() as u16, size.height() as u16);
        plan.program.push("process.terminal", Op::Console { width, height, bind: false });
    }
    plan.program.push("process", Op::ReopenNull);
    let linux = target.spec.linux().as_ref();
    let none = None;
    let maps = linux.map_or((&none, &none), |linux| (linux.uid_mappings(), linux.gid_mappings()));
    let context = process::Context { user, maps, init: false };
    if let Some(linux) = linux {
        process::settings(&mut plan, linux)?;
    }
    let filter = linux.and_then(|linux| linux.seccomp().as_ref());
    process::steps(&mut plan, process, filter, options, &context)?;
    process::exec(&mut plan, process, options)?;
    Ok(plan)
}

/// The container that a process is added to.
pub(crate) struct Target<'a> {
    pub(crate) pid: i32,
    pub(crate) spec: &'a Spec,
    pub(crate) cgroup: &'a Cgroup,
}
