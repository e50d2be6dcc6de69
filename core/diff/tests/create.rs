//! Making layers: what is made, applied again, gives the same tree.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::Path,
    time::{Duration, SystemTime},
};

use harness::{Detail, apply_to, chain, tree};
use kevel_diff::{
    Form, Options,
    create::{self, Upper, Written, create, pack},
    layer::Compression,
    tar::{Entry, Kind, Limits, Reader},
};
use proptest::prelude::*;

/// The layer from `lower` to `upper`.
fn layer(lower: Option<&Path>, upper: &Path, options: &create::Options) -> (Vec<u8>, Written) {
    let (lower, upper) = (lower.map(|path| File::open(path).unwrap()), File::open(upper).unwrap());
    let mut archive = Vec::new();
    let written = create(lower.as_ref().map(|file| file as &dyn AsFd), &upper, &mut archive, options)
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    (archive, written)
}

fn entries(archive: &[u8]) -> Vec<Entry> {
    let mut reader = Reader::new(archive, Limits::default());
    std::iter::from_fn(|| reader.entry().unwrap()).collect()
}

fn names(archive: &[u8]) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    entries(archive)
        .iter()
        .map(|entry| match entry.kind {
            Kind::HardLink => format!("{} = {}", text(&entry.name), text(&entry.link)),
            _ => text(&entry.name),
        })
        .collect()
}

fn directories(dir: &Path) -> [std::path::PathBuf; 3] {
    ["lower", "upper", "root"].map(|name| {
        let path = dir.join(name);
        fs::create_dir(&path).unwrap();
        path
    })
}

fn copy(from: &Path, to: &Path) {
    assert!(std::process::Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap().success());
}

#[test]
fn only_what_changed_is_in_a_layer() {
    let dir = tempfile::tempdir().unwrap();
    let [lower, upper, root] = directories(dir.path());
    for path in ["same/a", "mode/a", "gone/a/b", "was-dir/a", "content", "deep/er/file", "touched"] {
        fs::create_dir_all(lower.join(path).parent().unwrap()).unwrap();
        fs::write(lower.join(path), "old").unwrap();
    }
    symlink("old", lower.join("link")).unwrap();
    copy(&lower, &upper);
    copy(&lower, &root);
    fs::set_permissions(upper.join("mode"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::remove_dir_all(upper.join("gone")).unwrap();
    fs::remove_dir_all(upper.join("was-dir")).unwrap();
    fs::write(upper.join("was-dir"), "file").unwrap();
    fs::write(upper.join("content"), "new").unwrap();
    fs::remove_file(upper.join("deep/er/file")).unwrap();
    fs::hard_link(upper.join("content"), upper.join("deep/second")).unwrap();
    fs::remove_file(upper.join("link")).unwrap();
    symlink("new", upper.join("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(upper.join("socket")).unwrap();
    let (archive, written) = layer(Some(&lower), &upper, &create::Options::default());
    let expected = [
        "content",
        "deep/",
        "deep/er/",
        "deep/er/.wh.file",
        "deep/second = content",
        ".wh.gone",
        "link",
        "mode/",
        "was-dir",
    ];
    assert_eq!(names(&archive), expected);
    assert_eq!((written.entries, written.size, written.skipped), (expected.len() as u64, 7, 1));
    apply_to(&root, &archive, &Options::default()).unwrap();
    fs::remove_file(upper.join("socket")).unwrap();
    assert_eq!(tree(&root, Detail::All), tree(&upper, Detail::All));
}

#[test]
fn coarse_times_make_content_count() {
    let dir = tempfile::tempdir().unwrap();
    let [lower, upper, _] = directories(dir.path());
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    for (path, text) in [(&lower, "aaaa"), (&upper, "aaaa")] {
        fs::write(path.join("same"), text).unwrap();
        File::options().write(true).open(path.join("same")).unwrap().set_modified(time).unwrap();
    }
    for (path, text) in [(&lower, "aaaa"), (&upper, "bbbb")] {
        fs::write(path.join("other"), text).unwrap();
        File::options().write(true).open(path.join("other")).unwrap().set_modified(time).unwrap();
    }
    assert_eq!(names(&layer(Some(&lower), &upper, &create::Options::default()).0), ["other"]);
}

#[test]
fn changes_of_an_overlay_are_read_from_its_upper_directory() {
    let dir = tempfile::tempdir().unwrap();
    let [lower, changes, mounted] = directories(dir.path());
    let work = dir.path().join("work");
    fs::create_dir(&work).unwrap();
    for path in ["a/gone", "a/stays", "opaque/old", "changed/file"] {
        fs::create_dir_all(lower.join(path).parent().unwrap()).unwrap();
        fs::write(lower.join(path), "old").unwrap();
    }
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), changes.display(), work.display());
    let mount = kevel_model::Mount {
        kind: "overlay".into(),
        source: "overlay".into(),
        options: options.split(',').map(Into::into).collect(),
        ..kevel_model::Mount::default()
    };
    if let Err(error) = kevel_mount::mount(&mount, &mounted) {
        eprintln!("skipped: {}", chain(&error));
        return;
    }
    fs::remove_file(mounted.join("a/gone")).unwrap();
    fs::remove_dir_all(mounted.join("opaque")).unwrap();
    fs::create_dir(mounted.join("opaque")).unwrap();
    fs::write(mounted.join("opaque/new"), "new").unwrap();
    fs::write(mounted.join("changed/file"), "new content").unwrap();
    fs::write(mounted.join("new"), "").unwrap();
    let complete = layer(Some(&lower), &mounted, &create::Options::default()).0;
    let expected = tree(&mounted, Detail::All);
    kevel_mount::unmount(&mounted, kevel_mount::UnmountFlags::DETACH).unwrap();
    let options = create::Options { upper: Upper::Changes, ..create::Options::default() };
    let quick = layer(Some(&lower), &changes, &options).0;
    let common = ["new", "a/", "a/.wh.gone", "changed/", "changed/file"];
    assert!(names(&quick).contains(&"opaque/.wh..wh..opq".to_owned()));
    for name in common {
        assert!(names(&quick).contains(&name.to_owned()) && names(&complete).contains(&name.to_owned()), "{name}");
    }
    for archive in [complete, quick] {
        let root = tempfile::tempdir_in(&dir).unwrap();
        copy(&lower, root.path());
        apply_to(root.path(), &archive, &Options::default()).unwrap();
        assert_eq!(tree(root.path(), Detail::All), expected);
        // And as an overlay's directory, read again: the same layer.
        let again = tempfile::tempdir_in(&dir).unwrap();
        let form = Options { form: Form::Overlay, lowers: vec![lower.clone()], ..Options::default() };
        apply_to(again.path(), &archive, &form).unwrap();
        assert_eq!(names(&layer(Some(&lower), again.path(), &options).0), names(&archive));
    }
}

#[test]
fn a_layer_is_the_same_tomorrow() {
    let dir = tempfile::tempdir().unwrap();
    let [one, other, _] = directories(dir.path());
    for (path, names) in [(&one, ["a", "b", "c"]), (&other, ["c", "a", "b"])] {
        for name in names {
            fs::create_dir(path.join(name)).unwrap();
            fs::write(path.join(name).join("file"), name).unwrap();
        }
    }
    let latest = SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000);
    let options = create::Options { latest: Some(latest), ..create::Options::default() };
    let (first, second) = (layer(None, &one, &options).0, layer(None, &other, &options).0);
    assert_eq!(first, second);
    assert!(entries(&first).iter().all(|entry| entry.mtime.seconds == 1_500_000_000));
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let packed = |archive: &[u8]| {
            let mut sink = Vec::new();
            let packed = pack(compression, &mut sink, |sink| {
                sink.write_all(archive).unwrap();
                Ok(())
            });
            (packed.unwrap(), sink)
        };
        let ((one, sink), (other, _)) = (packed(&first), packed(&second));
        assert_eq!(one, other);
        assert_eq!((&one.digest, one.size), (&kevel_model::Digest::sha256(&sink), sink.len() as u64));
        assert_eq!(one.diff_id, kevel_model::Digest::sha256(&first));
        assert_eq!(Compression::detect(&sink).unwrap(), compression);
    }
}

#[test]
fn names_that_would_be_whiteouts_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".wh.a"), "").unwrap();
    let upper = File::open(dir.path()).unwrap();
    let error = create(None, &upper, Vec::new(), &create::Options::default()).unwrap_err();
    assert!(chain(&error).contains("entry \".wh.a\": the name is reserved"));
}

#[test]
fn other_programs_read_our_archives() {
    let dir = tempfile::tempdir().unwrap();
    let [source, theirs, _] = directories(dir.path());
    let long = "n".repeat(120);
    fs::create_dir_all(source.join(&long).join(&long)).unwrap();
    fs::write(source.join(&long).join("file"), "x").unwrap();
    fs::write(source.join("owner"), vec![1; 1000]).unwrap();
    std::os::unix::fs::chown(source.join("owner"), Some(3_000_000_000), Some(5)).unwrap();
    fs::hard_link(source.join("owner"), source.join("same")).unwrap();
    symlink(long.repeat(3), source.join("link")).unwrap();
    rustix::fs::lsetxattr(source.join("owner"), "user.x", b"\0=\n", rustix::fs::XattrFlags::empty()).unwrap();
    let before_unix = SystemTime::UNIX_EPOCH - Duration::from_millis(1500);
    File::options().write(true).open(source.join("owner")).unwrap().set_modified(before_unix).unwrap();
    let archive = layer(None, &source, &create::Options::default()).0;
    let listed: Vec<_> = ::tar::Archive::new(&archive[..])
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path_bytes().into_owned())
        .collect();
    assert_eq!(listed, entries(&archive).into_iter().map(|entry| entry.name).collect::<Vec<_>>());
    let file = dir.path().join("archive");
    fs::write(&file, &archive).unwrap();
    let mut command = std::process::Command::new("tar");
    command.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"]).arg(&file).arg("-C").arg(&theirs);
    match command.output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            eprintln!("skipped: tar: {error}");
            return;
        }
    }
    assert_eq!(tree(&theirs, Detail::Times), tree(&source, Detail::Times));
}

// === property: any two trees ===

/// A small file system to be: contents by path. Paths are short, so that the two trees of a pair collide often.
#[derive(Clone, Debug)]
enum Node {
    File(Vec<u8>, u32),
    Dir(u32),
    Link(String),
    Same,
}

fn node() -> impl Strategy<Value = Node> {
    let mode = prop_oneof![Just(0o644), Just(0o755), Just(0o4711), Just(0o600)];
    prop_oneof![
        (prop::collection::vec(any::<u8>(), 0..700), mode.clone()).prop_map(|(data, mode)| Node::File(data, mode)),
        mode.prop_map(Node::Dir),
        "[a-c]{1,2}".prop_map(Node::Link),
        Just(Node::Same),
    ]
}

fn nodes() -> impl Strategy<Value = BTreeMap<String, Node>> {
    prop::collection::btree_map("[a-c](/[a-c]){0,3}", node(), 0..12)
}

/// Makes the tree as far as it makes sense: what is beneath a file is left out.
fn make(dir: &Path, nodes: &BTreeMap<String, Node>) {
    let mut last: Option<std::path::PathBuf> = None;
    for (path, node) in nodes {
        let path = dir.join(path);
        let plain = |path: &Path| fs::symlink_metadata(path).is_ok_and(|stat| !stat.is_dir());
        if path.ancestors().skip(1).take_while(|above| *above != dir).any(plain) || fs::symlink_metadata(&path).is_ok()
        {
            continue;
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match node {
            Node::File(data, mode) => {
                fs::write(&path, data).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                last = Some(path);
            }
            Node::Dir(mode) => {
                fs::create_dir(&path).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            }
            Node::Link(target) => symlink(target, &path).unwrap(),
            Node::Same => {
                if let Some(last) = &last {
                    fs::hard_link(last, &path).unwrap();
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_layer_turns_one_tree_into_the_other(old in nodes(), new in nodes()) {
        let dir = tempfile::tempdir().unwrap();
        let [lower, upper, root] = directories(dir.path());
        make(&lower, &old);
        make(&upper, &new);
        copy(&lower, &root);
        let (archive, written) = layer(Some(&lower), &upper, &create::Options::default());
        prop_assert_eq!(entries(&archive).len() as u64, written.entries);
        apply_to(&root, &archive, &Options::default()).unwrap();
        prop_assert_eq!(tree(&root, Detail::All), tree(&upper, Detail::All));
        // Nothing is left to say.
        prop_assert_eq!(names(&layer(Some(&upper), &upper, &create::Options::default()).0), Vec::<String>::new());
        prop_assert_eq!(fs::metadata(&root).unwrap().mode(), fs::metadata(&lower).unwrap().mode());
    }

    #[test]
    fn a_whole_tree_comes_back(new in nodes()) {
        let dir = tempfile::tempdir().unwrap();
        let [_, upper, root] = directories(dir.path());
        make(&upper, &new);
        let (archive, _) = layer(None, &upper, &create::Options::default());
        apply_to(&root, &archive, &Options::default()).unwrap();
        prop_assert_eq!(tree(&root, Detail::Times), tree(&upper, Detail::Times));
        let again = layer(None, &root, &create::Options::default()).0;
        prop_assert!(again == archive, "the same tree gives another archive");
    }

    /// Whatever the bytes are: no panic, nothing endless, and nothing outside.
    #[test]
    fn no_bytes_break_the_applier(
        changes in prop::collection::vec((0usize..4096, any::<u8>()), 1..8),
        cut in 0usize..4096,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let mut archive = harness::Archive::new()
            .pax(&[("path", b"a/b"), ("size", b"3"), ("SCHILY.xattr.user.a", b"1")])
            .file("x", "abc")
            .symlink("s", "../../..")
            .hard_link("h", "a/b")
            .file("s/f", "x")
            .dir("d")
            .end();
        for (at, byte) in changes {
            let at = at % archive.len();
            archive[at] = byte;
            // Keep the checksum right, so that the change gets through to what follows it.
            if let Some(block) = archive.chunks_exact_mut(512).nth(at / 512).filter(|block| block[257..262] == *b"ustar") {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        archive.truncate(archive.len() - cut % 1024);
        let limits = Limits { content: 1 << 20, archive: 1 << 20, ..Limits::default() };
        let _ = apply_to(&root, &archive, &Options { limits, ..Options::default() });
        prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
