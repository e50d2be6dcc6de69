//! The container's file system as a list of steps: root, mounts, devices, hooks, hidden and read-only paths.

use std::{ffi::CString, fs, os::fd::AsRawFd as _, path::Path};

use oci_spec::runtime::{Hook as HookSpec, Spec};

use super::{Plan, Request, devices, inside, mounts, namespaces::User, options, path, text};
use crate::{
    child::{self, Op},
    error::{Error, Result},
    sys::{self, MountAttr, Strings},
};

pub(super) fn steps(plan: &mut Plan, request: &mut Request<'_>, user: User) -> Result<()> {
    let spec = request.spec;
    let propagation = propagation(request)?;
    plan.program.push("linux.rootfsPropagation", Op::Propagation(propagation.0 as u32 | rec(propagation.1)));
    attach(plan, request)?;
    mounts::steps(plan, request, user, propagation.0)?;
    let dev_is_bound = mounts::is_bound(spec, Path::new("/dev"));
    if !dev_is_bound {
        devices::steps(plan, request.linux, user)?;
    }
    hooks(plan, request)?;
    if let Some(process) = spec.process() {
        // An image need not have the directory that a process begins in.
        plan.program.push("process.cwd", Op::MakeDir(path(&inside(process.cwd()), "process.cwd")?));
    }
    terminal(plan, spec);
    restrictions(plan, request)?;
    change(plan, request)?;
    if !dev_is_bound {
        plan.program.push("process", Op::ReopenNull);
    }
    Ok(())
}

fn rec(recursive: bool) -> u32 {
    if recursive { libc::MS_REC as u32 } else { 0 }
}

fn propagation(request: &Request<'_>) -> Result<(u64, bool)> {
    match request.linux.rootfs_propagation().as_deref() {
        None | Some("") => Ok((libc::MS_SLAVE, true)),
        Some(name) => {
            let known = options::propagation(name);
            known.ok_or_else(|| Error::invalid("linux.rootfsPropagation", format!("{name:?} is no propagation")))
        }
    }
}

/// The root file system, taken from the host's tree by descriptor. What is mounted in it stays in the container.
fn attach(plan: &mut Plan, request: &Request<'_>) -> Result<()> {
    let root = request.spec.root().as_ref().ok_or_else(|| Error::invalid("root", "is missing"))?;
    let at = request.bundle.join(root.path());
    if root.path().as_os_str().is_empty() {
        return Err(Error::invalid("root.path", "is empty"));
    }
    let failed =
        |doing: &str, err: std::io::Error| Error::failed("root.path", format!("{doing} {}", at.display()), err);
    let meta = fs::symlink_metadata(&at).map_err(|err| failed("find", err))?;
    if !meta.is_dir() {
        return Err(Error::invalid("root.path", format!("{} is not a directory, or is a link to one", at.display())));
    }
    let tree = child::path::tree(None, &path(&at, "root.path")?, true).map_err(|err| failed("open", err.into()))?;
    for flag in [libc::MS_SLAVE, if private(request) { libc::MS_PRIVATE } else { 0 }] {
        if flag != 0 {
            let attr = MountAttr { propagation: flag, ..MountAttr::default() };
            sys::mount_setattr(tree.as_raw_fd(), &attr, true)
                .map_err(|err| failed("set the propagation of", err.into()))?;
        }
    }
    plan.root = Some(tree);
    plan.program.push("root.path", Op::AttachRoot);
    Ok(())
}

fn private(request: &Request<'_>) -> bool {
    request.linux.rootfs_propagation().as_deref().is_some_and(|name| name.ends_with("private"))
}

fn hooks(plan: &mut Plan, request: &Request<'_>) -> Result<()> {
    let Some(hooks) = request.spec.hooks() else { return Ok(()) };
    let of_runtime = hooks.prestart().iter().chain(hooks.create_runtime()).any(|hooks| !hooks.is_empty());
    let of_child = hooks.create_container().iter().chain(hooks.start_container()).any(|hooks| !hooks.is_empty());
    if of_runtime || of_child {
        plan.program.push("hooks", Op::RuntimeHooks);
    }
    for (at, one) in hooks.create_container().iter().flatten().enumerate() {
        let field = format!("hooks.createContainer[{at}]");
        let hook = hook(one, &field, request.id, request.bundle, request.spec, "creating")?;
        plan.program.push(field, Op::Hook(Box::new(hook)));
    }
    Ok(())
}

/// Hooks that run in the container just before its program.
pub(super) fn start_hooks(plan: &mut Plan, request: &Request<'_>) -> Result<()> {
    let hooks = request.spec.hooks().as_ref().and_then(|hooks| hooks.start_container().as_ref());
    for (at, one) in hooks.into_iter().flatten().enumerate() {
        let field = format!("hooks.startContainer[{at}]");
        let mut hook = hook(one, &field, request.id, request.bundle, request.spec, "created")?;
        // The bundle is not a directory of the container's.
        hook.cwd = None;
        plan.program.push(field, Op::Hook(Box::new(hook)));
    }
    Ok(())
}

/// A hook, ready to run; its state lacks only the pid.
pub(crate) fn hook(
    hook: &HookSpec,
    field: &str,
    id: &str,
    bundle: &Path,
    spec: &Spec,
    status: &str,
) -> Result<child::Hook> {
    if !hook.path().is_absolute() {
        return Err(Error::invalid(format!("{field}.path"), "is not absolute"));
    }
    let timeout = match hook.timeout() {
        Some(seconds) if seconds <= 0 => return Err(Error::invalid(format!("{field}.timeout"), "is not positive")),
        timeout => timeout,
    };
    let strings = |list: &[String], name: &str| -> Result<Vec<CString>> {
        list.iter().enumerate().map(|(at, one)| text(one, &format!("{field}.{name}[{at}]"))).collect()
    };
    let program = path(hook.path(), &format!("{field}.path"))?;
    let mut args = strings(hook.args().as_deref().unwrap_or_default(), "args")?;
    if args.is_empty() {
        args.push(program.clone());
    }
    Ok(child::Hook {
        path: program,
        argv: Strings::new(args),
        envp: Strings::new(strings(hook.env().as_deref().unwrap_or_default(), "env")?),
        cwd: Some(path(bundle, "bundle")?),
        timeout,
        state: state(id, bundle, spec, status),
    })
}

/// The state as JSON in two parts, between which the pid belongs.
fn state(id: &str, bundle: &Path, spec: &Spec, status: &str) -> (Vec<u8>, Vec<u8>) {
    let value = serde_json::json!({
        "ociVersion": spec.version(),
        "id": id,
        "status": status,
        "bundle": bundle,
        "annotations": spec.annotations().clone().unwrap_or_default(),
    });
    let text = value.to_string();
    (br#"{"pid":"#.to_vec(), format!(",{}", &text[1..]).into_bytes())
}

fn terminal(plan: &mut Plan, spec: &Spec) {
    let Some(process) = spec.process().as_ref().filter(|process| process.terminal() == Some(true)) else { return };
    let size = process.console_size().unwrap_or_default();
    let (width, height) = (size.width() as u16, size.height() as u16);
    plan.program.push("process.terminal", Op::Console { width, height, bind: true });
}

fn restrictions(plan: &mut Plan, request: &Request<'_>) -> Result<()> {
    let label = request.linux.mount_label().as_ref().filter(|label| !label.is_empty());
    let label = label.map(|label| text(label, "linux.mountLabel")).transpose()?;
    for (at, target) in request.linux.readonly_paths().iter().flatten().enumerate() {
        let field = format!("linux.readonlyPaths[{at}]");
        plan.program.push(&*field, Op::ReadonlyPath(absolute(target, &field)?));
    }
    for (at, target) in request.linux.masked_paths().iter().flatten().enumerate() {
        let field = format!("linux.maskedPaths[{at}]");
        plan.program.push(&*field, Op::MaskedPath { path: absolute(target, &field)?, label: label.clone() });
    }
    Ok(())
}

fn absolute(target: &str, field: &str) -> Result<CString> {
    if !target.starts_with('/') {
        return Err(Error::invalid(field, "is not absolute"));
    }
    path(&inside(Path::new(target)), field)
}

fn change(plan: &mut Plan, request: &Request<'_>) -> Result<()> {
    if request.options.no_pivot {
        // The host's tree stays below; at least its proc and sysfs must not.
        for at in mounts::of_kinds(&["proc", "sysfs"])? {
            if at != Path::new("/") {
                plan.program.push("root.path", Op::Umount(path(&at, "root.path")?));
            }
        }
        plan.program.push("root.path", Op::Chroot);
    } else {
        plan.program.push("root.path", Op::Pivot);
    }
    if let Some(name) = request.linux.rootfs_propagation().as_deref().filter(|name| !name.is_empty())
        && let Some((flag, recursive)) = options::propagation(name)
    {
        plan.program.push("linux.rootfsPropagation", Op::RootPropagation(flag as u32 | rec(recursive)));
    }
    if request.spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly) == Some(true) {
        let attr = MountAttr { set: libc::MOUNT_ATTR_RDONLY, ..MountAttr::default() };
        plan.program.push("root.readonly", Op::RootAttr(attr));
    }
    Ok(())
}
