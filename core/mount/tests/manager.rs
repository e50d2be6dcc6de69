//! A mount manager on this machine, as root; with loop devices, for what is an image.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use kevel_model::Mount;
use kevel_mount::{Activated, Manager, UnmountFlags, all, mount_table, unmount};

struct Setup {
    dir: tempfile::TempDir,
    manager: Manager,
}

/// `None`, with the reason printed, where mounts can't be made.
fn setup() -> Option<Setup> {
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: mounting needs root");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let manager = Manager::new(dir.path().join("t"), [data]);
    Some(Setup { dir, manager })
}

impl Setup {
    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Nothing is mounted and no activation is there.
    fn is_clean(&self) {
        let below: Vec<PathBuf> = mount_table().unwrap().into_iter().map(|entry| entry.mount_point).collect();
        let left: Vec<_> = below.iter().filter(|point| point.starts_with(self.dir.path())).collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(self.manager.numbers().unwrap(), []);
    }
}

fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
    let options = options.iter().map(|&option| option.to_owned()).collect();
    Mount { kind: kind.to_owned(), source: source.to_owned(), target: String::new(), options }
}

/// The names in a directory.
fn names(dir: &str) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn an_overlay_on_what_was_mounted_before() {
    let Some(setup) = setup() else { return };
    let lower = setup.path("data");
    fs::write(format!("{lower}/file"), "below").unwrap();
    let mounts = [
        mount("tmpfs", "tmpfs", &["size=1m"]),
        mount(
            "format/mkdir/overlay",
            "overlay",
            &[
                "X-containerd.mkdir.path={{ mount 0 }}/upper:0755:3:4",
                "X-containerd.mkdir.path={{ mount 0 }}/work",
                &format!("lowerdir={lower}"),
                "upperdir={{ mount 0 }}/upper",
                "workdir={{ mount 0 }}/work",
            ],
        ),
    ];
    let Activated { active, system } = setup.manager.activate(7, &mounts, false).unwrap();
    assert_eq!(active.len(), 1);
    let point = active[0].point.to_str().unwrap();
    assert_eq!(active[0].point, setup.dir.path().join("t/7/000"));
    let (upper, work) = (format!("upperdir={point}/upper"), format!("workdir={point}/work"));
    assert_eq!(system, [mount("overlay", "overlay", &[&format!("lowerdir={lower}"), &upper, &work])]);
    let about = fs::metadata(active[0].point.join("upper")).unwrap();
    assert_eq!((about.mode() & 0o7777, about.uid(), about.gid()), (0o755, 3, 4));
    assert_eq!(fs::metadata(active[0].point.join("work")).unwrap().mode() & 0o7777, 0o700);

    let view = setup.dir.path().join("view");
    fs::create_dir(&view).unwrap();
    all(&system, &view).unwrap();
    assert_eq!(fs::read_to_string(view.join("file")).unwrap(), "below");
    fs::write(view.join("new"), "above").unwrap();
    assert!(active[0].point.join("upper/new").exists());
    unmount(&view, UnmountFlags::empty()).unwrap();

    setup.manager.deactivate(7).unwrap();
    setup.manager.deactivate(7).unwrap();
    setup.is_clean();
}

#[test]
fn a_look_inside_is_one_bind() {
    let Some(setup) = setup() else { return };
    let data = setup.path("data");
    fs::write(format!("{data}/file"), "x").unwrap();
    let mounts = [mount("bind", &data, &["rbind", "ro"]), mount("format/bind", "{{ mount 0 }}", &["bind"])];
    let activated = setup.manager.activate(1, &mounts, true).unwrap();
    let last = activated.active[1].point.to_str().unwrap();
    assert_eq!(activated.system, [mount("bind", last, &["rbind"])]);
    assert_eq!(fs::read_to_string(format!("{last}/file")).unwrap(), "x");
    setup.manager.deactivate(1).unwrap();
    assert!(fs::exists(format!("{data}/file")).unwrap(), "what was mounted stays");
    setup.is_clean();
}

#[test]
fn an_image_is_made_once_and_is_a_device_while_it_is_needed() {
    if !fs::exists("/dev/loop-control").unwrap() {
        eprintln!("skipped: this kernel has no loop devices");
        return;
    }
    let Some(setup) = setup() else { return };
    let image = setup.path("data/fs.img");
    let uuid = "550e8400-e29b-41d4-a716-446655440000";
    let mounts = [
        mount("mkfs/loop", &image, &["X-containerd.mkfs.size=8MiB", &format!("X-containerd.mkfs.uuid={uuid}")]),
        mount("format/ext4", "{{ mount 0 }}", &[]),
    ];
    let activated = setup.manager.activate(1, &mounts, true).unwrap();
    let device = fs::read_link(&activated.active[0].point).unwrap();
    let backing = format!("/sys/block/{}/loop/backing_file", device.file_name().unwrap().to_str().unwrap());
    assert_eq!(fs::read_to_string(&backing).unwrap().trim_end(), image);
    fs::write(activated.active[1].point.join("kept"), "yes").unwrap();
    setup.manager.deactivate(1).unwrap();
    let still = fs::read_to_string(&backing).unwrap_or_default();
    assert_ne!(still.trim_end(), image, "the device has let go of its file");
    assert_eq!(names(&setup.path("data")), ["fs.img"]);
    let block = fs::read(&image).unwrap();
    assert_eq!(block[1024 + 104..][..4], [0x55, 0x0e, 0x84, 0x00], "the UUID in ext4's superblock");

    let activated = setup.manager.activate(2, &mounts, true).unwrap();
    assert_eq!(fs::read_to_string(activated.active[1].point.join("kept")).unwrap(), "yes");
    setup.manager.deactivate(2).unwrap();
    setup.is_clean();
}

#[test]
fn what_fails_leaves_nothing() {
    let Some(setup) = setup() else { return };
    let (missing, data) = (setup.path("data/none"), setup.path("data"));
    let first = || mount("tmpfs", "tmpfs", &[]);
    for (second, says) in [
        (mount("loop", &missing, &[]), missing.as_str()),
        (mount("loop", &data, &["ro"]), "is no file"),
        (mount("format/bind", "{{ mount 1 }}", &[]), "source: "),
        (mount("mkdir/tmpfs", "tmpfs", &["X-containerd.mkdir.path=/etc/x"]), "options: \"/etc/x\""),
        (mount("mkfs/loop", "/etc/x.img", &["X-containerd.mkfs.size=1m"]), "source: \"/etc/x.img\""),
        (mount("mkfs/loop", &format!("{data}/x"), &[]), "X-containerd.mkfs.size is required"),
        (mount("mkfs/loop", &format!("{data}/x"), &["X-containerd.mkfs.size=1"]), "mkfs.ext4 for"),
        (mount("format/nofs", "x", &[]), "mounting nofs"),
    ] {
        let error = setup.manager.activate(3, &[first(), second], true).unwrap_err();
        let error = kevel_model::Error::from(error).chain();
        assert!(error.contains(says), "{error} has no {says}");
        setup.is_clean();
    }
    assert_eq!(names(&data), [""; 0]);
    let many = vec![first(); 256];
    assert!(setup.manager.activate(3, &many, true).unwrap_err().to_string().contains("256"));
}
