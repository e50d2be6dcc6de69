//! Stream processors that are small shell scripts.

use std::{fs, io::Cursor, os::unix::fs::PermissionsExt as _, path::Path};

use kevel_model::{Code, Digest};

use super::*;

const SECRET: &str = "application/vnd.oci.image.layer.v1.tar+encrypted";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

fn script(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

fn processors(name: &str, path: String, accepts: &str, returns: &str) -> Processors {
    let one = Processor { accepts: vec![accepts.into()], returns: returns.into(), path, ..Processor::default() };
    Processors::new([(name.to_owned(), one)].into()).unwrap()
}

fn layer(kind: &str) -> Descriptor {
    Descriptor::new(kind, Digest::sha256(b"layer"), 5)
}

fn read(archive: &mut Archive) -> std::io::Result<String> {
    std::io::read_to_string(&mut archive.source)
}

#[test]
fn archives_need_none() {
    let mut archive = Processors::default().open(Cursor::new("bytes"), &layer(TAR), &BTreeMap::new()).unwrap();
    assert_eq!((read(&mut archive).unwrap().as_str(), archive.processed), ("bytes", false));
    let error = Processors::default().open(Cursor::new(""), &layer(SECRET), &BTreeMap::new()).err().unwrap();
    assert_eq!(error.code(), Code::Unimplemented);
}

#[test]
fn a_program_gets_stream_payload_and_type() {
    let dir = tempfile::tempdir().unwrap();
    let path = script(dir.path(), "p", "tr a-z A-Z; echo \" $STREAM_PROCESSOR_MEDIATYPE $1 $KEY\"; cat <&3");
    let one = Processor {
        accepts: vec![SECRET.into()],
        returns: TAR.into(),
        path,
        args: vec!["arg".into()],
        env: vec!["KEY=a=b".into()],
    };
    let all = Processors::new([("p".to_owned(), one)].into()).unwrap();
    let payload = Any { type_url: "some.Type".into(), value: b"told".to_vec() };
    let big = "x".repeat(1 << 20);
    let mut archive = all.open(Cursor::new(big), &layer(SECRET), &[("p".to_owned(), payload)].into()).unwrap();
    let text = read(&mut archive).unwrap();
    assert!(text.starts_with("XXXX"));
    assert_eq!(&text[1 << 20..], format!(" {SECRET} arg a=b\n\n\u{9}some.Type\u{12}\u{4}told"));
    assert_eq!((archive.media_type.as_str(), archive.processed), (TAR, true));
}

#[test]
fn decryption_tools_are_told_the_layer() {
    let dir = tempfile::tempdir().unwrap();
    let path = script(dir.path(), "p", "cat >/dev/null; cat <&3");
    let all = processors("io.containerd.ocicrypt.decoder.v1.tar", path, SECRET, TAR);
    let mut archive = all.open(Cursor::new("x"), &layer(SECRET), &BTreeMap::new()).unwrap();
    let mut bytes = Vec::new();
    std::io::copy(&mut archive.source, &mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let (_, json) = text.split_once('{').unwrap();
    let payload: serde_json::Value = serde_json::from_str(&format!("{{{json}")).unwrap();
    assert_eq!(payload["Descriptor"]["digest"], Digest::sha256(b"layer").as_str());
    assert!(payload["DecryptConfig"]["Parameters"].is_object() && text.contains(OCICRYPT_PAYLOAD));
}

#[test]
fn failures_are_in_the_words_of_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let check = |text: &str, wants: &str| {
        let all = processors("p", script(dir.path(), "p", text), SECRET, TAR);
        let mut archive = all.open(Cursor::new("x".repeat(1 << 20)), &layer(SECRET), &BTreeMap::new()).unwrap();
        let error = read(&mut archive).unwrap_err().to_string();
        assert!(error.contains(wants), "{error}");
    };
    check("echo no key >&2; exit 3", "stream processor p: exit status: 3: no key");
    check("cat; echo late >&2; exit 1", "exit status: 1: late");
    check("kill -9 $$", "signal: 9");
    let all = processors("p", "/nowhere/p".into(), SECRET, TAR);
    let error = all.open(Cursor::new(""), &layer(SECRET), &BTreeMap::new()).err().unwrap();
    assert!(error.chain().contains("stream processor p: starting /nowhere/p"), "{}", error.chain());
}

#[test]
fn a_source_that_breaks_is_no_end() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "broke off"))
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let all = processors("p", script(dir.path(), "p", "cat"), SECRET, TAR);
    let mut archive = all.open(Cursor::new("half").chain(Broken), &layer(SECRET), &BTreeMap::new()).unwrap();
    assert_eq!(read(&mut archive).unwrap_err().to_string(), "broke off");
}

#[test]
fn processors_feed_each_other_but_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = script(dir.path(), "p", "cat; printf +");
    let one = |accepts: &str, returns: &str| Processor {
        accepts: vec![accepts.into()],
        returns: returns.into(),
        path: path.clone(),
        ..Processor::default()
    };
    let all = Processors::new([("a".into(), one("x/1", "x/2")), ("b".into(), one("x/2", TAR))].into()).unwrap();
    assert_eq!(read(&mut all.open(Cursor::new("x"), &layer("x/1"), &BTreeMap::new()).unwrap()).unwrap(), "x++");
    assert!(all.can_read("x/1") && !all.can_read("x/3"));
    let all = Processors::new([("a".into(), one("x/1", "x/1"))].into()).unwrap();
    let error = all.open(Cursor::new("x"), &layer("x/1"), &BTreeMap::new()).err().unwrap();
    assert_eq!(error.code(), Code::FailedPrecondition);
}

#[test]
fn wrong_tables_are_refused() {
    let good = Processor { accepts: vec!["a".into()], returns: "b".into(), path: "p".into(), ..Processor::default() };
    let check = |change: fn(&mut Processor), wants: &str| {
        let mut one = good.clone();
        change(&mut one);
        assert_eq!(Processors::new([("n".into(), one)].into()).unwrap_err(), wants);
    };
    check(|one| one.accepts.clear(), "n.accepts: names no media type");
    check(|one| one.returns.clear(), "n.returns: is empty");
    check(|one| one.path.clear(), "n.path: is empty");
    check(|one| one.env = vec!["=secret".into()], "n.env: \"\" is not NAME=value");
}
