//! Mounts of the spec. What is bound is opened here, in the parent, with the host's rights and the host's paths, and gets
//! all its attributes while nobody can see it; the child only puts it in its place.

use std::{
    ffi::CString,
    fs,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use oci_spec::runtime::{Linux, Mount as MountSpec, Spec};

use super::{
    Plan, Request, inside, map,
    namespaces::User,
    options::{self, Parsed},
    path, text,
};
use crate::{
    child::{self, Controller, FileSystem, Mount, Op, Source},
    error::{Error, Result},
    idmap,
    sys::{self, MountAttr},
};

/// What may be mounted over in procfs: what lxcfs and its like show a container instead of the machine.
const OVER_PROC: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// File systems with one instance per namespace, which a mount's `ro` must not reach.
const SHARED: [&str; 6] = ["proc", "sysfs", "cgroup", "cgroup2", "mqueue", "devpts"];

const PROC_MAGIC: u64 = 0x9fa0;

/// A mount while it is planned.
struct Draft<'a> {
    spec: &'a MountSpec,
    field: String,
    target: PathBuf,
    kind: &'a str,
    parsed: Parsed,
}

impl<'a> Draft<'a> {
    fn new(spec: &'a MountSpec, at: usize) -> Result<Self> {
        let field = format!("mounts[{at}]");
        let parsed = options::parse(spec.options().as_deref().unwrap_or_default(), &format!("{field}.options"))?;
        if spec.destination().as_os_str().is_empty() {
            return Err(Error::invalid(format!("{field}.destination"), "is empty"));
        }
        let kind = spec.typ().as_deref().unwrap_or_default();
        if kind == "bind" && !parsed.bind && !parsed.remount {
            return Err(Error::invalid(format!("{field}.options"), "what is bound needs the option bind or rbind"));
        }
        Ok(Self { spec, target: inside(spec.destination()), field, kind, parsed })
    }

    fn invalid(&self, name: &str, reason: impl Into<String>) -> Error {
        Error::invalid(format!("{}.{name}", self.field), reason)
    }

    fn over_proc(&self) -> bool {
        OVER_PROC.iter().any(|allowed| self.target == Path::new(allowed))
    }

    /// Below `/proc` there is nothing to mount on but what is known to do no harm; on `/proc` itself belongs procfs.
    fn check_proc(&self) -> Result<()> {
        if !self.target.starts_with("/proc") || self.parsed.remount {
            return Ok(());
        }
        let itself = self.target == Path::new("/proc");
        if (itself && (self.kind == "proc" || self.parsed.bind)) || self.over_proc() {
            return Ok(());
        }
        Err(self.invalid("destination", format!("{} must not be mounted on", self.target.display())))
    }
}

pub(super) fn steps(plan: &mut Plan, request: &mut Request<'_>, user: User, propagation: u64) -> Result<()> {
    let mut sealed = Vec::new();
    for (at, spec) in request.spec.mounts().iter().flatten().enumerate() {
        let mut draft = Draft::new(spec, at)?;
        draft.check_proc()?;
        // Mount points are made in it, so it can't be read-only yet.
        let late = libc::MOUNT_ATTR_RDONLY & draft.parsed.attr.set;
        if late != 0 && !draft.parsed.remount && (draft.kind == "tmpfs" || draft.kind == "cgroup") && !draft.parsed.bind
        {
            draft.parsed.attr.set &= !late;
            sealed.push((draft.field.clone(), path(&draft.target, &draft.field)?));
        }
        let mount = mount(&draft, request, user, propagation)?;
        plan.program.push(draft.field, Op::Mount(Box::new(mount)));
    }
    for (field, target) in sealed.into_iter().rev() {
        let attr = MountAttr { set: libc::MOUNT_ATTR_RDONLY, ..MountAttr::default() };
        plan.program.push(field, Op::Seal { target, attr });
    }
    Ok(())
}

fn mount(draft: &Draft<'_>, request: &Request<'_>, user: User, propagation: u64) -> Result<Mount> {
    let mut mount = Mount {
        target: path(&draft.target, &draft.field)?,
        source: Source::Remount,
        attr: MountAttr::default(),
        recursive: draft.parsed.all,
        propagation: draft.parsed.propagation.clone(),
        on_proc: draft.over_proc() || draft.target == Path::new("/proc"),
        exact: matches!(draft.kind, "proc" | "sysfs") && !draft.parsed.bind,
    };
    let idmapped =
        draft.parsed.idmap.is_some() || draft.spec.uid_mappings().is_some() || draft.spec.gid_mappings().is_some();
    if idmapped && (!draft.parsed.bind || draft.parsed.remount) {
        return Err(draft.invalid("uidMappings", "only what is bound can be id-mapped"));
    }
    if draft.parsed.remount {
        if !draft.parsed.data.is_empty() {
            return Err(Error::unsupported(format!("{}.options", draft.field), "a remount of the file system itself"));
        }
        mount.attr = draft.parsed.attr;
    } else if draft.parsed.bind {
        mount.source = bind(draft, request.linux, request.bundle, user, propagation)?;
    } else if draft.kind == "cgroup" && !request.layout.unified {
        mount.source = cgroups(draft, request)?;
    } else {
        mount.source = Source::Fs(file_system(draft, request)?);
    }
    Ok(mount)
}

/// A file system that the child makes, in its namespaces.
fn file_system(draft: &Draft<'_>, request: &Request<'_>) -> Result<FileSystem> {
    let kind = match draft.kind {
        "" | "none" => return Err(draft.invalid("type", "is missing, and nothing is bound")),
        "cgroup" => "cgroup2",
        kind => kind,
    };
    let mut file_system = FileSystem {
        kind: text(kind, &format!("{}.type", draft.field))?,
        options: Vec::new(),
        flags: draft.parsed.attr.set as u32,
        inherit_mode: kind == "tmpfs" && draft.parsed.data.iter().all(|(key, _)| key.as_c_str() != c"mode"),
    };
    if let Some(source) = draft.spec.source() {
        file_system.options.push((c"source".into(), Some(path(source, &format!("{}.source", draft.field))?)));
    }
    if draft.parsed.attr.set & libc::MOUNT_ATTR_RDONLY != 0 && !SHARED.contains(&kind) {
        file_system.options.push((c"ro".into(), None));
    }
    file_system.options.extend(draft.parsed.data.iter().cloned());
    let label = request.linux.mount_label().as_ref().filter(|label| !label.is_empty());
    if let Some(label) = label.filter(|_| !matches!(kind, "proc" | "sysfs" | "cgroup2")) {
        file_system.options.push((c"context".into(), Some(text(label, "linux.mountLabel")?)));
    }
    Ok(file_system)
}

/// A detached copy of a part of the host's tree, with everything that the spec wants of it.
fn bind(draft: &Draft<'_>, linux: &Linux, bundle: &Path, user: User, propagation: u64) -> Result<Source> {
    let field = format!("{}.source", draft.field);
    let source = draft.spec.source().as_ref().ok_or_else(|| Error::invalid(&*field, "is missing"))?;
    if let Some((key, _)) =
        draft.parsed.data.iter().find(|(key, _)| !options::GENERAL.iter().any(|one| key.as_bytes() == one.as_bytes()))
    {
        return Err(draft.invalid("options", format!("{key:?} is no option of a bind mount")));
    }
    let source = bundle.join(source);
    let recursive = draft.parsed.recursive;
    let failed =
        |doing: &str, err: std::io::Error| Error::failed(&*field, format!("{doing} {}", source.display()), err);
    let tree = child::path::tree(None, &path(&source, &field)?, recursive).map_err(|err| failed("open", err.into()))?;
    let dir = rustix::fs::FileType::from_raw_mode(
        rustix::fs::fstat(&tree).map_err(|err| failed("stat", err.into()))?.st_mode,
    ) == rustix::fs::FileType::Directory;
    if draft.target == Path::new("/proc") {
        let magic = rustix::fs::fstatfs(&tree).map_err(|err| failed("stat", err.into()))?.f_type as u64;
        if magic != PROC_MAGIC {
            return Err(draft.invalid("destination", "on /proc belongs procfs"));
        }
    }
    let set = |attr: MountAttr, all: bool, what: &str| {
        if attr.is_empty() {
            return Ok(());
        }
        let name = format!("{}.{what}", draft.field);
        sys::mount_setattr(tree.as_raw_fd(), &attr, all).map_err(|err| Error::failed(name, "set the attributes", err))
    };
    // Nothing that is mounted in the container shows on the host, unless the spec shares it.
    if propagation != libc::MS_SHARED {
        set(MountAttr { propagation, ..MountAttr::default() }, recursive, "options")?;
    }
    if let Some((map, all)) = idmapping(draft, linux, user)? {
        let attr = MountAttr { set: libc::MOUNT_ATTR_IDMAP, userns_fd: map.as_raw_fd() as u64, ..MountAttr::default() };
        set(attr, all, "uidMappings")?;
    }
    set(draft.parsed.all, true, "options")?;
    set(draft.parsed.attr, false, "options")?;
    for (flag, all) in &draft.parsed.propagation {
        set(MountAttr { propagation: *flag, ..MountAttr::default() }, *all, "options")?;
    }
    Ok(Source::Tree { tree, dir })
}

/// The user namespace whose maps the mount gets: its own ones, or the container's.
fn idmapping(draft: &Draft<'_>, linux: &Linux, user: User) -> Result<Option<(OwnedFd, bool)>> {
    let (uids, gids) = (draft.spec.uid_mappings(), draft.spec.gid_mappings());
    let field = format!("{}.uidMappings", draft.field);
    let (uids, gids) = match (uids, gids, draft.parsed.idmap) {
        (None, None, None) => return Ok(None),
        (Some(_), Some(_), _) => (uids, gids),
        (None, None, Some(_)) if user == User::New => (linux.uid_mappings(), linux.gid_mappings()),
        (None, None, Some(_)) => {
            return Err(Error::unsupported(field, "the maps of a user namespace that is joined or none"));
        }
        _ => return Err(Error::invalid(field, "goes only with gidMappings")),
    };
    let uids = map(uids, &field)?;
    let gids = map(gids, &format!("{}.gidMappings", draft.field))?;
    if uids.is_empty() || gids.is_empty() {
        return Err(Error::invalid(field, "is empty"));
    }
    let made = idmap::namespace(&uids, &gids).map_err(|err| Error::failed(field, "make the map", err))?;
    Ok(Some((made, draft.parsed.idmap == Some(true))))
}

/// The container's part of each hierarchy of version 1.
fn cgroups(draft: &Draft<'_>, request: &Request<'_>) -> Result<Source> {
    let own = request
        .linux
        .namespaces()
        .iter()
        .flatten()
        .any(|one| one.typ() == oci_spec::runtime::LinuxNamespaceType::Cgroup);
    let (mut controllers, mut links) = (Vec::new(), Vec::new());
    let common = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    let readonly =
        request.spec.mounts().iter().flatten().any(|mount| {
            std::ptr::eq(mount, draft.spec) && mount.options().iter().flatten().any(|option| option == "ro")
        });
    let flags = draft.parsed.attr.set | common | if readonly { libc::MOUNT_ATTR_RDONLY } else { 0 };
    for (hierarchy, place) in request.layout.hierarchies.iter().zip(&request.cgroup.places) {
        let base = hierarchy.root.file_name().unwrap_or_default();
        let name = CString::new(base.as_encoded_bytes()).map_err(|_| draft.invalid("type", "a strange hierarchy"))?;
        let source = if own {
            let option = |name: &String| Ok((text(name, &draft.field)?, None));
            let options = match &hierarchy.controllers[..] {
                [named] if named.starts_with("name=") => {
                    vec![
                        (c"none".into(), None),
                        (c"source".into(), Some(text(&named["name=".len()..], &draft.field)?)),
                        (c"name".into(), Some(text(&named["name=".len()..], &draft.field)?)),
                    ]
                }
                names => {
                    let mut options = names.iter().map(option).collect::<Result<Vec<_>>>()?;
                    options.push((c"source".into(), Some(c"cgroup".into())));
                    options
                }
            };
            Source::Fs(FileSystem { kind: c"cgroup".into(), options, flags: flags as u32, inherit_mode: false })
        } else {
            let failed = |err| Error::failed(&*draft.field, format!("open {}", place.dir.display()), err);
            let tree = child::path::tree(None, &path(&place.dir, &draft.field)?, true).map_err(failed)?;
            let attr = MountAttr { set: flags, propagation: libc::MS_PRIVATE, ..MountAttr::default() };
            sys::mount_setattr(tree.as_fd().as_raw_fd(), &attr, true).map_err(failed)?;
            Source::Tree { tree, dir: true }
        };
        if hierarchy.controllers.len() > 1 {
            for one in &hierarchy.controllers {
                links.push((text(one, &draft.field)?, name.clone()));
            }
        }
        controllers.push(Controller { name, source });
    }
    Ok(Source::Cgroups { controllers, links })
}

/// Whether the spec binds something of the host's there.
pub(super) fn is_bound(spec: &Spec, target: &Path) -> bool {
    spec.mounts().iter().flatten().any(|mount| {
        let option = |name: &str| mount.options().iter().flatten().any(|option| option == name);
        inside(mount.destination()) == target
            && (mount.typ().as_deref() == Some("bind") || option("bind") || option("rbind"))
    })
}

/// Where file systems of these kinds are mounted on the host, the deepest first.
pub(super) fn of_kinds(kinds: &[&str]) -> Result<Vec<PathBuf>> {
    let text =
        fs::read_to_string("/proc/self/mountinfo").map_err(|err| Error::system("read /proc/self/mountinfo", err))?;
    let found = text.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let kind = file_system.split(' ').next()?;
        let at = mount.split(' ').nth(4)?;
        // Spaces and the like are written in octal; such a place has no proc that matters to anybody.
        (kinds.contains(&kind) && !at.contains('\\')).then(|| PathBuf::from(at))
    });
    let mut found: Vec<PathBuf> = found.collect();
    found.reverse();
    Ok(found)
}
