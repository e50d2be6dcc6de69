//! Where a container's cgroup is.

use crate::{
    document::Spec,
    error::{Result, invalid},
};

/// Puts container `id` below `parent`. A parent that ends in `.slice` is systemd's and becomes `slice:prefix:name`,
/// any other is a path. The prefix is containerd's, because tools such as cAdvisor look for it.
pub(crate) fn place(spec: &mut Spec, parent: &str, id: &str) -> Result<()> {
    if parent.is_empty() {
        return Ok(());
    }
    if parent.contains('\0') || parent.split('/').any(|part| part == "..") {
        return invalid("linux.cgroup_parent", format!("{parent:?} has a .. or a NUL in it"));
    }
    let trimmed = parent.trim_end_matches('/');
    let last = trimmed.rsplit('/').next().unwrap_or_default();
    let path = if last.ends_with(".slice") { format!("{last}:cri-containerd:{id}") } else { format!("{trimmed}/{id}") };
    spec.set("linux/cgroupsPath", path)
}
