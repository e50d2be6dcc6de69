//! Real mounts, as root, in scratch directories.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use kevel_model::Mount;
use kevel_mount::{
    TempMount, UnmountFlags, all, clean_temp_mounts, is_mount_point, mount, mount_table, read_only, unmount,
    unmount_all, unmount_recursive, with_temp_mount,
};

struct Scratch {
    dir: tempfile::TempDir,
}

impl Scratch {
    /// `None`, with the reason printed, where mounts can't be made.
    fn new() -> Option<Self> {
        if !rustix::process::getuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return None;
        }
        Some(Self { dir: tempfile::tempdir().unwrap() })
    }

    fn directory(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        unmount_recursive(self.dir.path(), UnmountFlags::DETACH).unwrap();
    }
}

fn describe(kind: &str, source: &Path, options: &[&str]) -> Mount {
    Mount {
        kind: kind.into(),
        source: source.to_str().unwrap().into(),
        options: options.iter().map(|option| (*option).into()).collect(),
        ..Mount::default()
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_read_only_bind_can_be_read_only() {
    let Some(scratch) = Scratch::new() else { return };
    let (source, target) = (scratch.directory("source"), scratch.directory("target"));
    std::fs::write(source.join("file"), b"x").unwrap();
    mount(&describe("bind", &source, &["rbind", "ro"]), &target).unwrap();
    assert_eq!(names(&target), ["file"]);
    let refused = std::fs::write(target.join("other"), b"x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert!(is_mount_point(&target).unwrap());
    unmount(&target, UnmountFlags::empty()).unwrap();
    assert!(!is_mount_point(&target).unwrap());
    unmount(&target, UnmountFlags::empty()).unwrap();
    unmount(&target.join("gone"), UnmountFlags::empty()).unwrap();
}

#[test]
fn a_bind_keeps_flags_of_its_source() {
    let Some(scratch) = Scratch::new() else { return };
    let (source, target) = (scratch.directory("source"), scratch.directory("target"));
    mount(&describe("tmpfs", Path::new("tmpfs"), &["nosuid", "noexec", "size=1m", "mode=711"]), &source).unwrap();
    mount(&describe("bind", &source, &["bind", "ro", "rprivate"]), &target).unwrap();
    let table = mount_table().unwrap();
    let entry = table.iter().find(|entry| entry.mount_point == target).unwrap();
    for want in ["ro", "nosuid", "noexec"] {
        assert!(entry.options.iter().any(|option| option == want), "{entry:?}");
    }
    assert!(entry.optional.is_empty(), "{entry:?}");
}

#[test]
fn a_list_is_mounted_whole_or_not_at_all() {
    let Some(scratch) = Scratch::new() else { return };
    let (source, target) = (scratch.directory("source"), scratch.directory("target"));
    std::fs::create_dir(source.join("sub")).unwrap();
    std::os::unix::fs::symlink("/", source.join("out")).unwrap();
    let base = describe("bind", &source, &["rbind"]);
    let below = |name: &str| Mount { target: name.into(), ..describe("tmpfs", Path::new("tmpfs"), &["size=1m"]) };
    all(&[base.clone(), below("/out/../sub")], &target).unwrap();
    assert!(is_mount_point(&target.join("sub")).unwrap());
    unmount_recursive(&target, UnmountFlags::empty()).unwrap();
    assert!(!is_mount_point(&target).unwrap());

    let error = all(&[base, below("missing")], &target).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    assert!(!is_mount_point(&target).unwrap());
}

#[test]
fn overlays_with_more_options_than_a_page() {
    let Some(scratch) = Scratch::new() else { return };
    let deep = "d".repeat(120);
    let lower: Vec<_> = (0..60)
        .map(|n| {
            let layer = scratch.directory(&format!("{deep}/{deep}/{n}/fs"));
            std::fs::write(layer.join(n.to_string()), b"x").unwrap();
            layer.to_str().unwrap().to_owned()
        })
        .collect();
    let (upper, work) = (scratch.directory(&format!("{deep}/upper")), scratch.directory(&format!("{deep}/work")));
    let options = [
        format!("lowerdir={}", lower.join(":")),
        format!("upperdir={}", upper.display()),
        format!("workdir={}", work.display()),
        "index=off".to_owned(),
    ];
    assert!(options[0].len() > 3 * 4096);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let target = scratch.directory("target");
    mount(&describe("overlay", Path::new("overlay"), &options), &target).unwrap();
    assert_eq!(names(&target).len(), 60);
    std::fs::remove_file(target.join("7")).unwrap();
    std::fs::write(target.join("new"), b"x").unwrap();
    unmount(&target, UnmountFlags::empty()).unwrap();
    assert_eq!(names(&upper), ["7", "new"]);
}

#[test]
fn temporary_mounts_are_gone_afterwards() {
    let Some(scratch) = Scratch::new() else { return };
    let (source, temp) = (scratch.directory("source"), scratch.directory("temp"));
    std::fs::write(source.join("file"), b"x").unwrap();
    let mounts = [describe("bind", &source, &["rbind", "rw"])];
    let seen = with_temp_mount(&temp, &read_only(&mounts), |path| {
        assert!(std::fs::write(path.join("x"), b"").is_err());
        Ok::<_, kevel_mount::Error>(names(path))
    });
    assert_eq!(seen.unwrap(), ["file"]);
    let panicked = std::panic::catch_unwind(|| {
        with_temp_mount(&temp, &mounts, |_| -> kevel_mount::Result<()> { panic!("on purpose") })
    });
    assert!(panicked.is_err());
    let busy = TempMount::new(&temp, &mounts).unwrap();
    let held = std::fs::File::open(busy.path().join("file")).unwrap();
    busy.close().unwrap();
    drop(held);
    assert!(TempMount::new(&temp, &[describe("bind", &source.join("missing"), &["bind"])]).is_err());
    assert_eq!(names(&temp), Vec::<String>::new());

    std::mem::forget(TempMount::new(&temp, &mounts).unwrap());
    assert_eq!(names(&temp).len(), 1);
    clean_temp_mounts(&temp).unwrap();
    assert_eq!(names(&temp), Vec::<String>::new());
    assert_eq!(names(&source), ["file"]);
}

#[test]
fn a_read_only_overlay_shows_its_upper_directory() {
    let Some(scratch) = Scratch::new() else { return };
    let (lower, upper, work) = (scratch.directory("l"), scratch.directory("u"), scratch.directory("w"));
    std::fs::write(lower.join("a"), b"x").unwrap();
    std::fs::write(upper.join("b"), b"x").unwrap();
    let options = [
        "uidmap=0:1000:10".to_owned(),
        "gidmap=0:1000:10".to_owned(),
        format!("workdir={}", work.display()),
        format!("upperdir={}", upper.display()),
        format!("lowerdir={}", lower.display()),
    ];
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let mounts = read_only(&[describe("overlay", Path::new("overlay"), &options)]);
    assert!(mounts[0].is_read_only(), "{mounts:?}");
    let seen = with_temp_mount(&scratch.directory("temp"), &mounts, |path| Ok::<_, kevel_mount::Error>(names(path)));
    assert_eq!(seen.unwrap(), ["a", "b"]);
}

#[test]
fn stacked_mounts_go_together() {
    let Some(scratch) = Scratch::new() else { return };
    let target = scratch.directory("target");
    for _ in 0..3 {
        mount(&describe("tmpfs", Path::new("tmpfs"), &["size=1m"]), &target).unwrap();
    }
    unmount_all(&target, UnmountFlags::empty()).unwrap();
    assert!(!is_mount_point(&target).unwrap());
}

/// What is outside 70000 of the namespace is root of the files, and the other way round.
fn owner(path: &Path) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid())
}

#[test]
fn owners_of_binds_and_overlays_are_mapped() {
    let Some(scratch) = Scratch::new() else { return };
    let (one, two, target) = (scratch.directory("one"), scratch.directory("two"), scratch.directory("target"));
    std::fs::write(one.join("a"), b"x").unwrap();
    std::fs::write(two.join("b"), b"x").unwrap();
    std::os::unix::fs::chown(two.join("b"), Some(5), Some(6)).unwrap();
    let maps = ["uidmap=0:70000:1000", "gidmap=0:80000:1000"];
    mount(&describe("bind", &two, &[maps[0], maps[1], "rbind", "ro"]), &target).unwrap();
    assert_eq!(owner(&target.join("b")), (70005, 80006));
    assert!(std::fs::write(target.join("c"), b"x").is_err(), "read-only");
    unmount(&target, UnmountFlags::empty()).unwrap();

    let lower = format!("lowerdir={}:{}", one.display(), two.display());
    let (upper, work) = (scratch.directory("upper"), scratch.directory("work"));
    let above = [format!("upperdir={}", upper.display()), format!("workdir={}", work.display())];
    let options = [maps[0], maps[1], &above[0], &above[1], &lower];
    mount(&describe("overlay", Path::new("overlay"), &options), &target).unwrap();
    assert_eq!(names(&target), ["a", "b"]);
    assert_eq!((owner(&target.join("a")), owner(&target.join("b"))), ((70000, 80000), (70005, 80006)));
    std::fs::write(target.join("new"), b"x").unwrap();
    assert_eq!(owner(&upper.join("new")), (0, 0), "what is written is written as who writes");
    let mounts = mount_table().unwrap().into_iter().filter(|mount| mount.mount_point.starts_with(&target)).count();
    assert_eq!(mounts, 1, "nothing but the overlay is seen");
    unmount(&target, UnmountFlags::empty()).unwrap();

    let half = mount(&describe("bind", &two, &["uidmap=0:70000:1000", "rbind"]), &target).unwrap_err();
    assert!(half.to_string().contains("gidmap"), "{half}");
    assert!(!is_mount_point(&target).unwrap());
}
