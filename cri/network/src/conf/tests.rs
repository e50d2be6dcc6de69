//! Tests of configurations, good and malformed.

use super::*;
use proptest::prelude::*;
use serde_json::json;
use std::fs;
use std::path::Path;

fn error(bytes: &[u8], single: bool) -> String {
    let parsed = if single { NetworkList::parse_single(bytes) } else { NetworkList::parse(bytes) };
    crate::error::Chain(&parsed.expect_err("must be refused")).to_string()
}

#[test]
fn malformed_lists_are_refused_by_field() {
    for (text, want) in [
        ("", "not JSON: EOF while parsing a value at line 1 column 0"),
        ("{", "not JSON: EOF while parsing an object at line 1 column 1"),
        ("[]", "not a JSON object"),
        ("{}", "invalid field: name: missing"),
        (r#"{"name":null}"#, "invalid field: name: missing"),
        (r#"{"name":7}"#, "invalid field: name: not a string"),
        (r#"{"name":""}"#, "invalid field: name: empty"),
        (r#"{"name":"../etc"}"#, r#"invalid field: name: "../etc" does not start with a letter or a digit"#),
        (
            r#"{"name":"a/b"}"#,
            r#"invalid field: name: "a/b" contains a character that is not a letter, a digit, '_', '.' or '-'"#,
        ),
        (r#"{"name":"a\nb"}"#, "invalid field: name: contains a control character"),
        (r#"{"name":"n","cniVersion":1}"#, "invalid field: cniVersion: not a string"),
        (r#"{"name":"n","cniVersion":"1.0"}"#, r#"invalid field: cniVersion: "1.0" is not a version"#),
        (r#"{"name":"n","cniVersion":"2.0.0"}"#, r#"invalid field: cniVersion: "2.0.0" is not a supported version"#),
        (r#"{"name":"n","cniVersions":"1.0.0"}"#, "invalid field: cniVersions: not a list"),
        (r#"{"name":"n","cniVersions":["1.0.0","x"]}"#, r#"invalid field: cniVersions[1]: "x" is not a version"#),
        (r#"{"name":"n","disableCheck":"maybe"}"#, "invalid field: disableCheck: not a boolean"),
        (r#"{"name":"n","disableGC":1}"#, "invalid field: disableGC: not a boolean"),
        (
            r#"{"name":"n","loadOnlyInlinedPlugins":true}"#,
            "invalid field: loadOnlyInlinedPlugins: true, but there are no plugins in the file",
        ),
        (r#"{"name":"n","plugins":{}}"#, "invalid field: plugins: not a list"),
        (r#"{"name":"n","plugins":[]}"#, "invalid field: plugins: empty"),
        (r#"{"name":"n","plugins":["bridge"]}"#, "invalid field: plugins[0]: not an object"),
        (r#"{"name":"n","plugins":[{"type":"a"},{}]}"#, "invalid field: plugins[1].type: missing"),
        (r#"{"name":"n","plugins":[{"type":""}]}"#, "invalid field: plugins[0].type: empty"),
        (r#"{"name":"n","plugins":[{"type":"../sh"}]}"#, "invalid field: plugins[0].type: not a file name"),
        (
            r#"{"name":"n","plugins":[{"type":"a","capabilities":["portMappings"]}]}"#,
            "invalid field: plugins[0].capabilities: not an object",
        ),
        (
            r#"{"name":"n","plugins":[{"type":"a","capabilities":{"portMappings":1}}]}"#,
            "invalid field: plugins[0].capabilities.portMappings: not a boolean",
        ),
        (r#"{"name":"n","plugins":[{"type":"a","ipam":[]}]}"#, "invalid field: plugins[0].ipam: not an object"),
        (
            r#"{"name":"n","plugins":[{"type":"a","ipam":{"type":"/bin/sh"}}]}"#,
            "invalid field: plugins[0].ipam.type: not a file name",
        ),
    ] {
        assert_eq!(error(text.as_bytes(), false), want, "{text}");
    }
}

#[test]
fn malformed_single_configurations_are_refused_by_field() {
    for (text, want) in [
        (r#"{"name":"n"}"#, "invalid field: type: missing"),
        (r#"{"type":"bridge"}"#, "invalid field: name: missing"),
        (r#"{"name":"n","type":7}"#, "invalid field: type: not a string"),
        (
            r#"{"name":"n","plugins":[{"type":"a"}]}"#,
            "invalid field: type: missing: a file with plugins must be called .conflist",
        ),
    ] {
        assert_eq!(error(text.as_bytes(), true), want, "{text}");
    }
}

#[test]
fn the_highest_common_version_is_selected() {
    let check = |fields: &str, want: SpecVersion| {
        let text = format!(r#"{{"name":"n"{fields},"plugins":[{{"type":"a"}}]}}"#);
        assert_eq!(NetworkList::parse(text.as_bytes()).unwrap().version, want, "{fields}");
    };
    check("", SpecVersion::V0_1_0);
    check(r#","cniVersion":"""#, SpecVersion::V0_1_0);
    check(r#","cniVersion":"0.4.0""#, SpecVersion::V0_4_0);
    check(r#","cniVersions":["0.3.1","1.1.0","1.0.0"]"#, SpecVersion::V1_1_0);
    check(r#","cniVersion":"0.4.0","cniVersions":["0.3.1","1.0.0","9.0.0"]"#, SpecVersion::V1_0_0);
    check(r#","cniVersion":"9.0.0","cniVersions":["1.0.0"]"#, SpecVersion::V1_0_0);
}

#[test]
fn a_request_has_what_the_plugin_asked_for_and_nothing_else() {
    let list = NetworkList::parse_single(
        br#"{"name":"n","cniVersion":"1.0.0","type":"a","own":{"x":1},"prevResult":{"stale":1},"cni.dev/x":1,
            "capabilities":{"portMappings":true,"bandwidth":false,"mac":true}}"#,
    )
    .unwrap();
    let args = [("portMappings", json!([1])), ("bandwidth", json!({})), ("dns", json!({}))];
    let args: BTreeMap<_, _> = args.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let prev = json!({"cniVersion": "1.0.0"});
    let request = |prev| {
        let fields = RequestFields { prev_result: prev, capability_args: &args, valid_attachments: None };
        serde_json::from_slice::<Value>(&list.request(&list.plugins[0], fields)).unwrap()
    };
    let mut want = json!({
        "name": "n", "cniVersion": "1.0.0", "type": "a", "own": {"x": 1},
        "capabilities": {"portMappings": true, "bandwidth": false, "mac": true},
        "runtimeConfig": {"portMappings": [1]},
    });
    assert_eq!(request(None), want);
    want["prevResult"] = prev.clone();
    assert_eq!(request(prev.as_object()), want);
}

fn write(dir: &Path, name: &str, text: &str) {
    fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
    fs::write(dir.join(name), text).unwrap();
}

fn list(name: &str) -> String {
    format!(r#"{{"cniVersion":"1.0.0","name":"{name}","plugins":[{{"type":"a"}}]}}"#)
}

#[test]
fn a_directory_is_read_in_order_and_broken_files_cost_only_themselves() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "00-broken.conflist", "{");
    write(dir.path(), "10-b.conflist", &list("b"));
    write(dir.path(), "15-twin.conflist", &list("b"));
    write(dir.path(), "20-a.conf", r#"{"name":"a","type":"x"}"#);
    write(dir.path(), "30-c.json", r#"{"name":"c","type":"x"}"#);
    write(dir.path(), "40-d.yaml", "ignored");
    write(dir.path(), "50-dir.conf/file", "ignored");
    std::os::unix::fs::symlink("10-b.conflist", dir.path().join("60-dangling-not.conflist")).unwrap();
    let check = |max: usize, names: &[&str], errors: usize| {
        let loaded = load(dir.path(), max);
        let got: Vec<_> = loaded.networks.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(got, names);
        assert_eq!(loaded.errors.len(), errors, "{:?}", loaded.errors);
    };
    check(1, &["b"], 1);
    check(2, &["b", "a"], 2);
    check(0, &["b", "a", "c"], 3);
    let loaded = load(dir.path(), 1);
    let broken = crate::error::Chain(&loaded.errors[0]).to_string();
    assert!(broken.contains("00-broken.conflist: not JSON: EOF"), "{broken}");
    assert_eq!(load(&dir.path().join("none"), 0).candidates, 0);
}

#[test]
fn odd_files_are_reported_and_do_not_block() {
    let dir = tempfile::tempdir().unwrap();
    nix::unistd::mkfifo(&dir.path().join("10-fifo.conf"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    write(dir.path(), "20-huge.conf", &" ".repeat((1 << 20) + 1));
    std::os::unix::fs::symlink("nowhere", dir.path().join("30-dangling.conf")).unwrap();
    let errors: Vec<String> =
        load(dir.path(), 0).errors.iter().map(|e| crate::error::Chain(&e.source).to_string()).collect();
    assert_eq!(
        errors,
        [
            "unreadable: not a regular file",
            "longer than 1048576 bytes",
            "unreadable: No such file or directory (os error 2)"
        ]
    );
}

#[test]
fn plugins_from_the_folder_of_the_network() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "10-n.conflist", &list("n"));
    write(dir.path(), "n/20-last.conf", r#"{"type":"last"}"#);
    write(dir.path(), "n/10-middle.conf", r#"{"type":"middle"}"#);
    write(dir.path(), "n/ignored.json", "{");
    let kinds = |list: &NetworkList| list.plugins.iter().map(|p| p.kind.clone()).collect::<Vec<_>>();
    let loaded = load(dir.path(), 1);
    assert_eq!(kinds(&loaded.networks[0]), ["a", "middle", "last"]);
    // What is recorded runs the same chain, even when the folder has changed by then.
    let recorded = NetworkList::parse_recorded(&loaded.networks[0].to_bytes()).unwrap();
    assert_eq!(recorded, loaded.networks[0]);

    write(dir.path(), "n/10-middle.conf", "{}");
    let loaded = load(dir.path(), 1);
    let error = crate::error::Chain(&loaded.errors[0].source).to_string();
    assert_eq!(error, "invalid field: type of plugin file 10-middle.conf: missing");

    write(dir.path(), "10-n.conflist", r#"{"name":"n","loadOnlyInlinedPlugins":true,"plugins":[{"type":"a"}]}"#);
    assert_eq!(kinds(&load(dir.path(), 1).networks[0]), ["a"]);

    write(dir.path(), "10-n.conflist", r#"{"name":"m"}"#);
    let error = crate::error::Chain(&load(dir.path(), 1).errors[0].source).to_string();
    assert_eq!(error, r#"no plugins, neither in the file nor in a folder "m" beside it"#);
}

#[test]
fn the_fallback_is_checked() {
    let ok = Fallback { subnets: vec!["10.1.0.0/16".into(), "fd00::/64".into()], ..Fallback::default() };
    let list = ok.network().unwrap();
    assert_eq!((list.name.as_str(), list.plugins.len()), ("kevel", 2));
    let check = |fallback: Fallback, want: &str| {
        assert_eq!(crate::error::Chain(&fallback.network().unwrap_err()).to_string(), want);
    };
    let subnets = |subnets: &[&str]| Fallback {
        subnets: subnets.iter().map(|s| (*s).to_owned()).collect(),
        ..Fallback::default()
    };
    check(subnets(&[]), "invalid field: subnets: empty");
    check(subnets(&["10.0.0.0"]), r#"invalid field: subnets[0]: "10.0.0.0" is not an address with a prefix length"#);
    check(
        subnets(&["10.0.0.0/8", "10.1.0.0/16"]),
        "invalid field: subnets[1]: a second subnet of the same address family",
    );
    check(
        Fallback { bridge: "a b".into(), ..Fallback::default() },
        "invalid field: bridge: contains a slash, a colon or white space",
    );
    check(
        Fallback { name: "-".into(), ..Fallback::default() },
        r#"invalid field: name: "-" does not start with a letter or a digit"#,
    );
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = NetworkList::parse(&bytes);
        let _ = NetworkList::parse_single(&bytes);
    }

    #[test]
    fn a_valid_list_survives_the_way_through_a_record(
        name in "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,20}",
        kinds in proptest::collection::vec("[a-z][a-z0-9-]{0,10}", 1..5),
        own in "\\PC{0,20}",
        flags in any::<[bool; 2]>(),
    ) {
        let plugins: Vec<_> = kinds.iter().map(|kind| json!({"type": kind, "own": own})).collect();
        let text = json!({"name": name, "cniVersion": "1.1.0", "disableCheck": flags[0], "disableGC": flags[1], "plugins": plugins});
        let list = NetworkList::parse(text.to_string().as_bytes()).unwrap();
        prop_assert_eq!(&NetworkList::parse_recorded(&list.to_bytes()).unwrap(), &list);
        prop_assert_eq!(list.plugins.iter().map(|p| p.kind.clone()).collect::<Vec<_>>(), kinds);
    }
}
