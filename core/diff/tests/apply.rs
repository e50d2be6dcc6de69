//! Applying honest layers: what every kind of entry becomes, and that GNU tar agrees.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use harness::{Archive, Block, Detail, apply_to, chain, tree, xattrs};
use kevel_diff::{Form, Options, apply::RootEntry};

fn applied(archive: Vec<u8>, options: &Options) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    apply_to(dir.path(), &archive, options).unwrap_or_else(|error| panic!("{}", chain(&error)));
    dir
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|stat| stat.mode() & 0o170_000 == 0o020_000 && stat.rdev() == 0)
}

/// Runs a program that must succeed; `None` if it is not there.
fn run(program: &str, arguments: &[&str]) -> Option<()> {
    let output = match Command::new(program).args(arguments).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: {program}: {error}");
            return None;
        }
    };
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

#[test]
fn everything_about_a_file_is_kept() {
    let long = "n".repeat(200);
    let archive = Archive::new()
        .pax(&[
            ("path", format!("d/{long}").as_bytes()),
            ("uid", b"4000000000"),
            ("gid", b"3000000000"),
            ("mtime", b"-1.25"),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            ("SCHILY.xattr.user.note", b"a=b\nc\0"),
        ])
        .block(Block::new(b'0', b"x").size(2).set(100, b"0006755\0"))
        .data(b"hi")
        .pax(&[("mtime", b"1700000000.123456789")])
        .block(Block::new(b'5', b"d").set(100, b"0001777\0"))
        .block(Block::new(b'6', b"p").set(100, b"0000640\0").set(108, b"0000007\0"))
        .device(b'4', "b", "0000010", "0000377")
        .pax(&[("SCHILY.xattr.trusted.note", b"on a link")])
        .symlink("s", "anywhere")
        .file("d/late", "")
        .end();
    let root = applied(archive, &Options::default());
    let file = root.path().join("d").join(&long);
    let stat = fs::metadata(&file).unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (4_000_000_000, 3_000_000_000, 0o6755));
    assert_eq!((stat.mtime(), stat.mtime_nsec()), (-2, 750_000_000));
    assert!(xattrs(&file).iter().any(|line| line.starts_with("security.capability=")));
    assert!(xattrs(&file).contains(&"user.note=a=b\\nc\\x00".to_owned()));
    let stat = fs::metadata(root.path().join("d")).unwrap();
    assert_eq!((stat.mtime(), stat.mtime_nsec(), stat.mode() & 0o7777), (1_700_000_000, 123_456_789, 0o1777));
    let stat = fs::symlink_metadata(root.path().join("b")).unwrap();
    assert_eq!((stat.mode(), rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev())), (0o060_755, 8, 255));
    let stat = fs::symlink_metadata(root.path().join("p")).unwrap();
    assert_eq!((stat.mode(), stat.uid()), (0o010_640, 7));
    assert_eq!(xattrs(&root.path().join("s")), ["trusted.note=on a link"]);
}

#[test]
fn plain_whiteouts_delete_what_was_there_and_spare_their_own_layer() {
    let root = tempfile::tempdir().unwrap();
    let below = Archive::new().file("a", "").file("d/old", "").dir("d/sub").file("d/sub/old", "").file("e/old", "");
    apply_to(root.path(), &below.symlink("l", "d").end(), &Options::default()).unwrap();
    let above = Archive::new()
        .file(".wh.a", "")
        .file("d/new", "")
        .file("d/sub/new", "")
        .file("d/.wh..wh..opq", "")
        .file("e", "now a file")
        .file(".wh.e", "")
        .file(".wh.l", "")
        .file(".wh.never", "");
    apply_to(root.path(), &above.end(), &Options::default()).unwrap();
    let lines = tree(root.path(), Detail::Content);
    let names: Vec<_> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["d/", "e", "d/new", "d/sub/", "d/sub/new"]);
}

#[test]
fn overlay_whiteouts_are_devices_and_attributes() {
    let options = Options { form: Form::Overlay, ..Options::default() };
    let archive = Archive::new()
        .file("a/.wh.gone", "")
        .file("b/.wh..wh..opq", "")
        .file("b/new", "")
        .file(".wh.anew", "")
        .dir("anew")
        .file(".wh.deep", "")
        .file("deep/er/file", "")
        .dir("before")
        .file(".wh.before", "")
        .file("file", "")
        .file(".wh.file", "");
    let root = applied(archive.end(), &options);
    let path = |name: &str| root.path().join(name);
    let opaque = ["trusted.overlay.opaque=y"];
    assert!(is_whiteout(&path("a/gone")));
    assert_eq!(xattrs(&path("a")), [""; 0]);
    for name in ["b", "anew", "deep", "before"] {
        assert_eq!(xattrs(&path(name)), opaque, "{name}");
    }
    assert!(path("b/new").is_file() && path("deep/er/file").is_file() && path("file").is_file());
}

#[test]
fn directories_without_an_entry_look_like_those_below() {
    let dir = tempfile::tempdir().unwrap();
    let [top, bottom, root] = ["top", "bottom", "root"].map(|name| dir.path().join(name));
    for path in [&top, &bottom, &root] {
        fs::create_dir(path).unwrap();
    }
    fs::create_dir_all(bottom.join("srv/data")).unwrap();
    fs::set_permissions(bottom.join("srv"), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(bottom.join("srv/data"), fs::Permissions::from_mode(0o2750)).unwrap();
    std::os::unix::fs::chown(bottom.join("srv/data"), Some(7), Some(8)).unwrap();
    rustix::fs::lsetxattr(bottom.join("srv/data"), "user.a", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    fs::create_dir_all(top.join("usr/bin")).unwrap();
    symlink("usr/bin", top.join("bin")).unwrap();
    let options = Options { form: Form::Overlay, lowers: vec![top, bottom], ..Options::default() };
    let archive = Archive::new().file("srv/data/file", "").file("bin/tool", "").end();
    let applied = apply_to(&root, &archive, &options).unwrap();
    assert_eq!((applied.entries, applied.inodes), (2, 6));
    let stat = fs::metadata(root.join("srv/data")).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (0o2750, 7, 8));
    assert_eq!(fs::metadata(root.join("srv")).unwrap().mode() & 0o7777, 0o711);
    assert_eq!(xattrs(&root.join("srv/data")), ["user.a=1"]);
    // As through the mounted overlay: the link stays a link.
    assert!(root.join("usr/bin/tool").is_file() && !root.join("bin").exists());
}

#[test]
fn the_root_is_described_when_asked_for() {
    let archive = || Archive::new().block(Block::new(b'5', b"./").set(100, b"0000710\0").set(108, b"0000005\0")).end();
    let ignored = applied(archive(), &Options::default());
    assert_eq!(fs::metadata(ignored.path()).unwrap().uid(), 0);
    let described = applied(archive(), &Options { root_entry: RootEntry::Apply, ..Options::default() });
    let stat = fs::metadata(described.path()).unwrap();
    assert_eq!((stat.uid(), stat.mode() & 0o7777, stat.mtime()), (5, 0o710, 0));
}

#[test]
fn numbers_of_what_was_applied() {
    let archive = Archive::new().dir("d").file("d/a", "12345").hard_link("d/b", "d/a").symlink("s", "d").end();
    let length = archive.len() as u64;
    let dir = tempfile::tempdir().unwrap();
    let applied = apply_to(dir.path(), &archive, &Options::default()).unwrap();
    assert_eq!((applied.entries, applied.size, applied.inodes, applied.archive), (4, 5, 3, length));
}

/// A tree with something of everything.
fn sample(dir: &Path) {
    let long = "long-name-".repeat(20);
    for path in ["a/b/c", "empty", &long] {
        fs::create_dir_all(dir.join(path)).unwrap();
    }
    fs::write(dir.join("a/b/c/file"), vec![7; 300_000]).unwrap();
    fs::write(dir.join("a/zero"), "").unwrap();
    fs::hard_link(dir.join("a/b/c/file"), dir.join("a/again")).unwrap();
    fs::write(dir.join(&long).join(&long), "long").unwrap();
    symlink(long.repeat(5), dir.join("a/link")).unwrap();
    symlink("nowhere", dir.join("dangling")).unwrap();
    fs::write(dir.join("setuid"), "x").unwrap();
    std::os::unix::fs::chown(dir.join("setuid"), Some(3_000_000), Some(12)).unwrap();
    fs::set_permissions(dir.join("setuid"), fs::Permissions::from_mode(0o4711)).unwrap();
    rustix::fs::lsetxattr(dir.join("setuid"), "user.x", b"\0\xff\n", rustix::fs::XattrFlags::empty()).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("pipe"), 0o600.into()).unwrap();
    let device = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(rustix::fs::CWD, dir.join("null"), rustix::fs::FileType::CharacterDevice, 0o666.into(), device)
        .unwrap();
    let sparse = fs::File::create(dir.join("sparse")).unwrap();
    sparse.set_len(50 << 20).unwrap();
    for n in 0..40 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", n << 20).unwrap();
    }
    let many = dir.join("many");
    fs::create_dir(&many).unwrap();
    for n in 0..100 {
        fs::create_dir(many.join(format!("{n}"))).unwrap();
        fs::write(many.join(format!("{n}/file")), format!("{n}")).unwrap();
    }
}

#[test]
fn gnu_tar_agrees_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    sample(&source);
    let formats: [(&str, &[&str]); 6] = [
        ("gnu", &["--format=gnu"]),
        ("gnu sparse", &["--format=gnu", "--sparse"]),
        ("pax", &["--format=pax", "--xattrs"]),
        ("pax sparse 0.0", &["--format=pax", "--xattrs", "--sparse", "--sparse-version=0.0"]),
        ("pax sparse 0.1", &["--format=pax", "--xattrs", "--sparse", "--sparse-version=0.1"]),
        ("pax sparse 1.0", &["--format=pax", "--xattrs", "--sparse", "--sparse-version=1.0"]),
    ];
    for (name, arguments) in formats {
        let archive = dir.path().join("archive");
        let (theirs, ours) = (tempfile::tempdir_in(&dir).unwrap(), tempfile::tempdir_in(&dir).unwrap());
        let place = ["-C", source.to_str().unwrap(), "-cf", archive.to_str().unwrap(), "."];
        let Some(()) = run("tar", &[arguments, &["--numeric-owner"], &place].concat()) else { return };
        let place = ["-C", theirs.path().to_str().unwrap(), "-xpf", archive.to_str().unwrap()];
        run("tar", &[&["--xattrs", "--xattrs-include=*", "--numeric-owner"], &place[..]].concat());
        let bytes = fs::read(&archive).unwrap();
        let applied = apply_to(ours.path(), &bytes, &Options::default())
            .unwrap_or_else(|error| panic!("{name}: {}", chain(&error)));
        assert_eq!(tree(ours.path(), Detail::Times), tree(theirs.path(), Detail::Times), "{name}");
        if name.contains("sparse") {
            let blocks = fs::metadata(ours.path().join("sparse")).unwrap().blocks();
            assert!(blocks * 512 < 10 << 20, "{name}: {blocks} blocks are no sparse file");
            assert!(applied.size < 10 << 20);
        }
    }
}

#[test]
fn layers_are_applied_at_the_same_time() {
    let archive = (0..300).fold(Archive::new(), |archive, n| archive.file(format!("d{}/f{n}", n % 7), "x")).end();
    let expected = tree(applied(archive.clone(), &Options::default()).path(), Detail::Content);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let root = applied(archive.clone(), &Options::default());
                assert_eq!(tree(root.path(), Detail::Content), expected);
            });
        }
    });
}
