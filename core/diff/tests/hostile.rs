//! Archives that mean harm, or were damaged: what each of them gets, and that nothing outside of the root changes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::{fs, os::unix::fs::symlink, path::Path};

use harness::{Archive, Block, Detail, apply_to, chain, record, tree};
use kevel_diff::{Form, Options, tar::Limits};

/// What becomes of an archive.
enum End {
    /// It is refused with an error that contains this.
    Error(&'static str),
    /// It is applied, and this is what the root has then: an excerpt of the lines of the tree.
    Root(&'static [&'static str]),
}
use End::{Error, Root};

/// Applies `archive` to a root that sits beside other files, in both forms, and checks that those are as before.
#[track_caller]
fn check(what: &str, archive: Vec<u8>, end: &End) {
    check_with(what, &archive, end, &Options::default());
    check_with(what, &archive, end, &Options { form: Form::Overlay, ..Options::default() });
}

#[track_caller]
fn check_with(what: &str, archive: &[u8], end: &End, options: &Options) {
    let dir = tempfile::tempdir().unwrap();
    let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
    fs::create_dir_all(outside.join("etc")).unwrap();
    fs::write(outside.join("etc/passwd"), "secret").unwrap();
    fs::write(dir.path().join("file"), "precious").unwrap();
    fs::create_dir(&root).unwrap();
    // Ways out that a lower layer could have left, and one that the archives below know of.
    symlink(&outside, root.join("absolute")).unwrap();
    symlink("../outside", root.join("relative")).unwrap();
    symlink("../../../../../../../../../../../../etc", root.join("far")).unwrap();
    let before = surroundings(dir.path());
    let result = apply_to(&root, archive, options);
    assert_eq!(surroundings(dir.path()), before, "{what}: changed something outside of the root");
    match (end, result) {
        (Error(expected), Err(error)) => {
            let text = chain(&error);
            assert!(text.contains(expected), "{what}: {text:?} does not contain {expected:?}");
        }
        (Root(expected), Ok(_)) => {
            let lines = tree(&root, Detail::Content);
            for line in *expected {
                assert!(
                    lines.iter().any(|found| found == line || found.starts_with(&format!("{line} "))),
                    "{what}: {line:?} is not in {lines:#?}"
                );
            }
        }
        (Error(expected), Ok(_)) => {
            panic!("{what}: applied instead of {expected:?}: {:#?}", tree(&root, Detail::Content))
        }
        (Root(_), Err(error)) => panic!("{what}: {}", chain(&error)),
    }
}

/// Everything in `dir` but what is in the root, with times.
fn surroundings(dir: &Path) -> Vec<String> {
    let lines = tree(dir, Detail::Times);
    lines.into_iter().filter(|line| !line.starts_with("root/")).collect()
}

fn gnu(kind: u8, name: &[u8]) -> Block {
    let mut block = Block::new(kind, name);
    block.set(257, b"ustar  \0");
    block
}

#[test]
fn paths_that_lead_out() {
    let a = Archive::new;
    let out = Error("the path leads out of the root");
    check("parent", a().file("../file", "x").end(), &out);
    check("parents", a().file("../../../../etc/passwd", "x").end(), &out);
    check("parent after a name", a().file("a/../../file", "x").end(), &out);
    check("parent as a directory", a().dir("..").end(), &out);
    check("parent in PAX", a().pax(&[("path", b"../file")]).file("a", "x").end(), &out);
    check("parent in GNU", a().member(b'L', "././@LongLink", b"../file\0").file("a", "x").end(), &out);
    check("parent of a whiteout", a().file("../.wh.file", "").end(), &out);
    check("parent of an opaque whiteout", a().file("../.wh..wh..opq", "").end(), &out);
    check("absolute", a().file("/etc/passwd", "x").end(), &Root(&["etc/passwd 1 bytes"]));
    check("absolute twice", a().file("//etc//passwd", "x").end(), &Root(&["etc/passwd 1 bytes"]));
    check("the machine's own", a().file("/proc/self/root/file", "x").end(), &Root(&["proc/self/root/file 1 bytes"]));
    let split = Block::new(b'0', b"file").set(345, b"..").clone();
    check("parent in the prefix", a().block(&split).end(), &out);
}

#[test]
fn links_that_lead_out() {
    let a = Archive::new;
    // A link in the way means what it means to a process in the root, where all of these stay inside.
    check(
        "through an absolute link below",
        a().file("absolute/etc/passwd", "x").end(),
        &Root(&["relative -> ../outside"]),
    );
    check(
        "through a relative link below",
        a().file("relative/etc/passwd", "x").end(),
        &Root(&["outside/etc/passwd 1 bytes"]),
    );
    check("through a long way up", a().file("far/passwd", "x").end(), &Root(&["etc/passwd 1 bytes"]));
    let own = a().symlink("out", "../outside");
    check("through an own link", own.clone().file("out/etc/passwd", "x").end(), &Root(&["outside/etc/passwd 1 bytes"]));
    check("whiteout through a link", own.clone().file("out/etc/.wh.passwd", "").end(), &Root(&["outside/etc/"]));
    check("opaque through a link", own.clone().file("out/.wh..wh..opq", "").end(), &Root(&["outside/"]));
    check("directory through a link", own.clone().dir("out/etc").end(), &Root(&["outside/etc/"]));
    check(
        "device through a link",
        own.clone().device(b'3', "out/null", "1", "3").end(),
        &Root(&["outside/null device"]),
    );
    check("onto the link", own.clone().file("out", "x").end(), &Root(&["out 1 bytes"]));
    check(
        "directory onto the link",
        own.clone().dir("out").file("out/a", "x").end(),
        &Root(&["out/", "out/a 1 bytes"]),
    );
    let file = a().symlink("out", "../file").file("out", "x");
    check("written through a link to a file", file.end(), &Root(&["out 1 bytes"]));
    let chain = a().symlink("a", "b").symlink("b", "c").symlink("c", "/../..").file("a/file", "x");
    check("through a chain", chain.end(), &Root(&["file 1 bytes"]));
    let deep = a().dir("d").dir("d/e").symlink("d/e/up", "../../../../..").file("d/e/up/file", "x");
    check("up from inside", deep.end(), &Root(&["file 1 bytes"]));
    let swapped = a().dir("d").file("d/a", "x").symlink("d", "../outside").file("d/etc/passwd", "x");
    check("directory turned into a link", swapped.end(), &Root(&["d -> ../outside", "outside/etc/passwd 1 bytes"]));
    let cached = a().dir("d").dir("d/e").file("d/e/f", "x").symlink("d/e", "../..").file("d/e/file", "x");
    check("open directory turned into a link", cached.end(), &Root(&["file 1 bytes"]));
    let around = a().symlink("a", "b").symlink("b", "a").file("a/file", "x");
    check("in circles", around.end(), &Error("entry \"a/file\": the path has too many symbolic links"));
    let own = a().symlink("self", "self/x").file("self/file", "x");
    check("growing in circles", own.end(), &Error("too many symbolic links"));
    let hop = "d/".repeat(1500);
    let grown = a().pax(&[("path", hop.as_bytes())]).dir("x").pax(&[("linkpath", hop.as_bytes())]).symlink("s", "x");
    let grown = grown.pax(&[("path", format!("s/{hop}").as_bytes())]).dir("x");
    let options = Options { limits: Limits { path: 3800, ..Limits::default() }, ..Options::default() };
    let error = Error("the path is too long when its links are followed");
    check_with("too long through a link", &grown.end(), &error, &options);
    let magic = a().symlink("p", "/proc/self/fd/0").file("p/file", "x");
    check("through a magic link", magic.end(), &Root(&["proc/self/fd/0/file 1 bytes"]));
    check("without a target", a().symlink("s", "").end(), &Error("the link has no target"));
}

#[test]
fn hard_links_that_lead_out() {
    let a = Archive::new;
    check("to a parent", a().hard_link("h", "../file").end(), &Error("entry \"h\": the path leads out of the root"));
    check(
        "to what is not there",
        a().hard_link("h", "/etc/passwd").end(),
        &Error("entry \"h\": looking up a directory"),
    );
    check(
        "through a link",
        a().symlink("out", "..").hard_link("h", "out/file").end(),
        &Error("entry \"h\": making the hard link"),
    );
    check("through a link below", a().hard_link("h", "relative/etc/passwd").end(), &Error("entry \"h\": looking up"));
    // The link itself gets the second name; what is written through it afterwards replaces it.
    let to_link = a().symlink("s", "../file").hard_link("h", "s").file("h", "x");
    check("to a link, then written", to_link.end(), &Root(&["h 1 bytes", "s -> ../file"]));
    check("to a directory", a().dir("d").hard_link("h", "d").end(), &Error("entry \"h\": making the hard link"));
    check("to the root", a().hard_link("h", ".").end(), &Error("entry \"h\""));
    check("to itself", a().file("h", "x").hard_link("h", "./h").end(), &Error("the hard link leads to itself"));
    check(
        "over its target's directory",
        a().dir("d").file("d/f", "x").hard_link("d", "d/f").end(),
        &Error("entry \"d\""),
    );
    check("without a target", a().hard_link("h", "").end(), &Error("the link has no target"));
    let shared = a().file("f", "one").hard_link("h", "f").file("f", "three");
    check("a replaced file keeps its other name", shared.end(), &Root(&["f 5 bytes", "h 3 bytes"]));
}

#[test]
fn names_that_are_none() {
    let a = Archive::new;
    check("empty", a().file("", "x").end(), &Error("the entry has no name"));
    check("the root as a file", a().file("./", "x").end(), &Error("the root of a layer must be a directory"));
    check("the root as a link", a().symlink(".", "/").end(), &Error("the root of a layer must be a directory"));
    check("the root as a directory", a().dir("./").file("./a", "x").end(), &Root(&["a 1 bytes"]));
    check("NUL in PAX", a().pax(&[("path", b"a\0b")]).file("c", "x").end(), &Error("the PAX record \"path\""));
    check("NUL in a PAX link", a().pax(&[("linkpath", b"a\0b")]).symlink("c", "x").end(), &Error("\"linkpath\""));
    check("NUL in a header", a().file("a\0b", "x").end(), &Root(&["a 1 bytes"]));
    check("not UTF-8", a().file(b"\xff\xfe", "x").end(), &Root(&["\\xff\\xfe 1 bytes"]));
    check("newline", a().file("a\nb", "x").end(), &Root(&["a\\nb 1 bytes"]));
    let name = vec![b'a'; 256];
    check(
        "longer than a name can be",
        a().pax(&[("path", &name)]).file("x", "x").end(),
        &Error("making the file: File name too long"),
    );
    let path = vec![b'a'; 5000];
    check(
        "longer than a path can be",
        a().pax(&[("path", &path)]).file("x", "x").end(),
        &Error("4096 bytes in one path"),
    );
    let deep = "d/".repeat(10_000);
    check(
        "10,000 directories deep",
        a().pax(&[("path", deep.as_bytes())]).dir("x").end(),
        &Error("4096 bytes in one path"),
    );
    let deep = "d/".repeat(2_000);
    let there = a().pax(&[("path", deep.as_bytes())]).dir("x").file("d", "x");
    check("2,000 directories deep, then gone", there.end(), &Root(&["d 1 bytes"]));
    check("whiteout of nothing", a().file(".wh.", "").end(), &Error("the whiteout has an impossible name"));
    check("whiteout of the directory", a().file("a/.wh..", "").end(), &Error("the whiteout has an impossible name"));
    check("whiteout of the parent", a().file("a/.wh...", "").end(), &Error("the whiteout has an impossible name"));
    check("inside of a whiteout", a().file(".wh.a/b", "").end(), &Error("a whiteout is not a directory"));
    check("AUFS", a().dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "x").file(".wh..wh.aufs", "").end(), &Root(&[]));
    check("through a file", a().file("f", "x").file("f/a", "x").end(), &Error("entry \"f/a\": opening a directory"));
    check(
        "through a pipe",
        a().member(b'6', "p", b"").file("p/a", "x").end(),
        &Error("entry \"p/a\": opening a directory"),
    );
}

#[test]
fn the_same_name_twice() {
    let a = Archive::new;
    check("file, file", a().file("a", "1").file("a", "22").end(), &Root(&["a 2 bytes"]));
    check("file, directory", a().file("a", "1").dir("a").file("a/b", "x").end(), &Root(&["a/", "a/b 1 bytes"]));
    check("directory, file", a().dir("a").file("a/b", "x").file("a", "1").end(), &Root(&["a 1 bytes"]));
    check("directory, directory", a().dir("a").file("a/b", "x").dir("a").end(), &Root(&["a/", "a/b 1 bytes"]));
    check("directory, link, directory", a().dir("a").symlink("a", "b").dir("a").end(), &Root(&["a/"]));
    check("pipe, file", a().member(b'6', "a", b"").file("a", "1").end(), &Root(&["a 1 bytes"]));
    check("device, file", a().device(b'3', "a", "1", "5").file("a", "1").end(), &Root(&["a 1 bytes"]));
}

#[test]
fn numbers_that_lie() {
    let a = Archive::new;
    let with = |at, value: &[u8]| a().block(Block::new(b'0', b"a").set(at, value)).end();
    check("negative size", with(124, &[0xff; 12]), &Error("the field size is not a number in range"));
    check(
        "huge size",
        with(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
        &Error("the limit of 1099511627776 bytes of archive"),
    );
    check("larger than 64 bits", with(124, b"\x80\0\0\x01\0\0\0\0\0\0\0\0"), &Error("the field size"));
    check("no number", with(124, b"0000000000z\0"), &Error("the field size"));
    check("size in PAX is negative", a().pax(&[("size", b"-1")]).file("a", "x").end(), &Error("\"size\""));
    check(
        "size in PAX is huge",
        a().pax(&[("size", b"9223372036854775807")]).file("a", "x").end(),
        &Error("bytes of archive"),
    );
    check("more than there is", a().block(Block::new(b'0', b"a").size(4096)).end(), &Error("ends in the middle"));
    check("owner -1", with(108, &[0xff; 8]), &Error("the field uid"));
    check("owner 4294967295", a().pax(&[("uid", b"4294967295")]).file("a", "x").end(), &Error("the field uid"));
    check("owner of 33 bits", a().pax(&[("gid", b"4294967296")]).file("a", "x").end(), &Error("the field gid"));
    check("time past any", with(136, b"\x80\0\0\x01\0\0\0\0\0\0\0\0"), &Error("the field mtime"));
    check("time before any", with(136, &[0xff; 12]), &Root(&["a 0 bytes"]));
    check(
        "major number",
        a().device(b'3', "a", "0010000", "0").end(),
        &Error("entry \"a\": the device number is out of range"),
    );
    check(
        "minor number",
        a().device(b'4', "a", "1", "7777777").end(),
        &Error("entry \"a\": the device number is out of range"),
    );
    check(
        "negative device",
        a().block(Block::new(b'3', b"a").set(329, &[0xff; 8])).end(),
        &Error("the field devmajor"),
    );
    // Only files have data, whatever the size of others says: else two readers see two archives.
    let inner = a().file("evil", "x").0;
    let dir = a().block(Block::new(b'5', b"d").size(inner.len() as u64)).data(&inner).file("f", "x").end();
    check("directory with a size", dir, &Root(&["d/", "evil 1 bytes", "f 1 bytes"]));
}

#[test]
fn headers_that_lie() {
    let a = Archive::new;
    let mut wrong = a().file("a", "x").end();
    wrong[0] ^= 1;
    check("bad checksum", wrong, &Error("the header's checksum is wrong"));
    let mut wrong = a().file("a", "x").file("b", "x").end();
    wrong[1024 + 148] = b'9';
    check("bad second checksum", wrong, &Error("at byte 1024: the header's checksum is wrong"));
    check("noise", vec![0x5a; 4096], &Error("the header's checksum is wrong"));
    check("unknown type", a().member(b'Z', "a", b"").end(), &Error("entries of type 'Z' are not supported"));
    check("multi-volume", a().member(b'M', "a", b"").end(), &Error("entries of type 'M' are not supported"));
    check("half a header", a().file("a", "").0[..300].to_vec(), &Error("ends in the middle of an entry"));
    check("half a file", a().file("a", "x").0[..512].to_vec(), &Error("ends in the middle of an entry"));
    check("half the padding", a().file("a", "x").0[..700].to_vec(), &Error("ends in the middle of an entry"));
    check("no end", a().file("a", "x").0, &Root(&["a 1 bytes"]));
    check("nothing", Vec::new(), &Root(&[]));
    check(
        "more behind the end",
        [a().file("a", "x").end(), a().file("../file", "x").end()].concat(),
        &Root(&["a 1 bytes"]),
    );
    // Which size holds: readers that skip by the header's size would see another archive in the data.
    let inner = a().file("evil", "x").0;
    let size = inner.len().to_string();
    let desync = a().pax(&[("size", size.as_bytes())]).block(&Block::new(b'0', b"a")).data(&inner).file("b", "x").end();
    check("PAX size over the header's", desync, &Root(&["a 1024 bytes", "b 1 bytes"]));
    let between = a().pax(&[("size", b"1")]).member(b'L', "l", b"long\0").file("a", "x").end();
    check("PAX size with a GNU name", between, &Root(&["long 1 bytes"]));
    check(
        "PAX twice",
        a().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("c", "x").end(),
        &Error("two extended headers"),
    );
    check(
        "both names",
        a().pax(&[("path", b"a")]).member(b'L', "l", b"b").file("c", "x").end(),
        &Error("two extended headers"),
    );
    check(
        "GNU name twice",
        a().member(b'L', "l", b"a").member(b'L', "l", b"b").file("c", "x").end(),
        &Error("two extended"),
    );
    check("PAX without an entry", a().pax(&[("path", b"a")]).end(), &Error("ends in the middle of an entry"));
    check("GNU name without an entry", a().member(b'L', "l", b"a").end(), &Error("ends in the middle of an entry"));
    check(
        "global PAX",
        a().member(b'g', "g", &record(b"path", b"../file")).file("a", "x").end(),
        &Root(&["a 1 bytes"]),
    );
    check("broken global PAX", a().member(b'g', "g", b"x").file("a", "x").end(), &Error("a PAX record is malformed"));
    for bad in ["5 a=b\n", "7 a=b\n", "0 a=b\n", "-6 a=b\n", "6 a:b\n", "6 =ab\n", "99999999999 a=b\n", "a=b\n"] {
        check(bad, a().member(b'x', "p", bad.as_bytes()).file("a", "x").end(), &Error("a PAX record is malformed"));
    }
    let huge = a().block(Block::new(b'x', b"p").size(2 << 20)).end();
    check("huge PAX", huge, &Error("the limit of 1048576 bytes in one extended header"));
    let huge = a().block(Block::new(b'L', b"p").size(1 << 32)).end();
    check("huge GNU name", huge, &Error("the limit of 1048576 bytes in one extended header"));
}

#[test]
fn sparse_maps_that_lie() {
    let a = Archive::new;
    let impossible = Error("the map of a sparse file is impossible");
    let old = |entries: &[(&str, &str)], real: &str, data: &[u8]| {
        let mut block = gnu(b'S', b"s");
        for (n, (offset, length)) in entries.iter().enumerate() {
            block.set(386 + 24 * n, offset.as_bytes()).set(386 + 24 * n + 12, length.as_bytes());
        }
        block.set(483, real.as_bytes()).size(data.len() as u64);
        a().block(&block).data(data).end()
    };
    check("overlapping", old(&[("0", "4"), ("2", "4")], "10", b"12345678"), &impossible);
    check("backwards", old(&[("4", "4"), ("0", "4")], "10", b"12345678"), &impossible);
    check("past the end", old(&[("7", "4")], "10", b"1234"), &impossible);
    check("less data than said", old(&[("0", "4")], "10", b"123"), &impossible);
    check("more data than said", old(&[("0", "4")], "10", b"12345"), &impossible);
    check("wraps around", old(&[("77777777777", "77777777777")], "10", b"1234"), &impossible);
    check("hole of petabytes", old(&[("0", "4")], "\x7f", b"1234"), &Error("the field realsize"));
    let pax = |records: &[(&str, &[u8])], data: &[u8]| a().pax(records).member(b'0', "s", data).end();
    let one = [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"10")];
    check("no map", pax(&one, b""), &impossible);
    check("map that is no number", pax(&one, &[b'x'; 512]), &impossible);
    check("map that does not end", pax(&one, &[b'1'; 512]), &impossible);
    check(
        "map of too many",
        pax(&one, &[&b"999999999\n"[..], &[0; 502]].concat()),
        &Error("segments in one sparse file"),
    );
    check("no size", pax(&[("GNU.sparse.map", b"0,1")], b"x"), &impossible);
    check("odd map", pax(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"0,1,2")], b"x"), &impossible);
    check("length before offset", pax(&[("GNU.sparse.numbytes", b"1")], b"x"), &Error("GNU.sparse.numbytes"));
    let out = [("GNU.sparse.size", &b"1"[..]), ("GNU.sparse.map", b"0,1"), ("GNU.sparse.name", b"../file")];
    check("name that leads out", pax(&out, b"x"), &Error("the path leads out of the root"));
    let out: Vec<_> = one.iter().copied().chain([("GNU.sparse.name", &b"../file"[..])]).collect();
    let data = [&b"1\n0\n10\n"[..], &[0; 505], b"0123456789"].concat();
    check("name that leads out in 1.0", pax(&out, &data), &Error("the path leads out of the root"));
}

#[test]
fn bombs() {
    let a = Archive::new;
    let check = |what: &str, archive: Vec<u8>, limits: Limits, error: &'static str| {
        check_with(what, &archive, &Error(error), &Options { limits, ..Options::default() });
    };
    let many = (0..200).fold(a(), |archive, n| archive.device(b'3', &format!("d{n}"), "1", "3")).end();
    check("devices", many, Limits { entries: 100, ..Limits::default() }, "the limit of 100 entries");
    let path = "d/".repeat(2000);
    let deep = a().pax(&[("path", path.as_bytes())]).dir("x").end();
    check("directories on the way", deep, Limits { entries: 100, ..Limits::default() }, "the limit of 100 entries");
    let large = (0..20).fold(a(), |archive, n| archive.file(format!("{n}"), "0123456789")).end();
    check("content", large, Limits { content: 100, ..Limits::default() }, "the limit of 100 bytes of content");
    let hole = gnu(b'S', b"s").set(483, b"00007777777").clone();
    check(
        "holes",
        a().block(&hole).end(),
        Limits { content: 100, ..Limits::default() },
        "the limit of 100 bytes of content",
    );
    let behind = [a().end(), vec![0; 1 << 20]].concat();
    check("zeros", behind, Limits { archive: 4096, ..Limits::default() }, "the limit of 4096 bytes of archive");
    let globals = (0..100).fold(a(), |archive, _| archive.member(b'g', "g", b"")).end();
    check(
        "global headers",
        globals,
        Limits { archive: 4096, ..Limits::default() },
        "the limit of 4096 bytes of archive",
    );
    let long = a().pax(&[("comment", &[b'x'; 5000])]).file("a", "").end();
    check("PAX", long, Limits { extended: 4096, ..Limits::default() }, "bytes in one extended header");
}

#[test]
fn attributes_that_steer_overlayfs_are_left_out() {
    let archive = Archive::new()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.trusted.overlay.metacopy", b""),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.good", b"1"),
        ])
        .dir("d")
        .end();
    for form in [Form::Plain, Form::Overlay] {
        let dir = tempfile::tempdir().unwrap();
        let applied = apply_to(dir.path(), &archive, &Options { form, ..Options::default() }).unwrap();
        assert_eq!(applied.skipped_xattrs, 4);
        assert_eq!(harness::xattrs(&dir.path().join("d")), ["trusted.good=1"]);
    }
}
