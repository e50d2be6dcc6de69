//! Tests of `hosts.toml` parsing.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<Vec<Host>, Error> {
    parse(text, Path::new("/certs/reg.io/hosts.toml"), "reg.io", false)
}

#[test]
fn reads_every_field() {
    let hosts = read(
        r#"
        server = "https://upstream.io"
        [host."https://zeta.io/base/../mirror/"]
          capabilities = ["pull", "Resolve"]
          ca = "ca.pem"
          skip_verify = true
          dial_timeout = "1m1.5s"
          [host."https://zeta.io/base/../mirror/".header]
            x-one = "1"
            x-two = ["a", "b"]
        [host."http://alpha.io:8080/exact"]
          override_path = true
          ca = ["/abs/a.pem", "b.pem"]
          client = [["c.pem", "c.key"], ["d.pem", ""], "e.pem"]
        [host."plain.io"]
        "#,
    )
    .unwrap();
    let names: Vec<String> = hosts.iter().map(|host| host.url() + &host.path).collect();
    assert_eq!(
        names,
        ["https://zeta.io/mirror/v2", "https://alpha.io:8080/exact", "https://plain.io/v2", "https://upstream.io/v2"]
    );
    let [zeta, alpha, plain, upstream] = hosts.as_slice() else { panic!("{hosts:?}") };
    assert_eq!(zeta.capabilities, Capabilities { pull: true, resolve: true, push: false });
    assert_eq!(zeta.identity.ca, [PathBuf::from("/certs/reg.io/ca.pem")]);
    assert!(zeta.identity.skip_verify);
    assert_eq!(zeta.dial_timeout, Some(Duration::from_millis(61_500)));
    assert_eq!(zeta.headers.len(), 3);
    assert_eq!(alpha.scheme, Scheme::Either);
    assert_eq!(alpha.identity.ca[1], PathBuf::from("/certs/reg.io/b.pem"));
    assert_eq!(alpha.identity.client[0].1, Some(PathBuf::from("/certs/reg.io/c.key")));
    assert_eq!(alpha.identity.client[1].1, None);
    assert_eq!(plain.capabilities, Capabilities::ALL);
    assert_eq!([zeta.mirror, upstream.mirror], [true, false]);
    assert!(zeta.needs_namespace("reg.io"));
}

#[test]
fn the_registry_itself_is_last_without_a_server() {
    let hosts = read("[host.\"http://mirror:5000\"]\n").unwrap();
    assert_eq!(hosts.iter().map(Host::url).collect::<Vec<_>>(), ["http://mirror:5000", "https://reg.io"]);
    assert!(read("skip_verify = true").unwrap()[0].identity.skip_verify);
}

#[test]
fn says_which_field_is_wrong() {
    let check = |text: &str, want: &str| {
        let error = read(text).unwrap_err().to_string();
        assert!(error.starts_with("host configuration /certs/reg.io/hosts.toml: "), "{error}");
        assert!(error.contains(want), "{text}: {error}");
    };
    check("server = ", "line 1");
    check("server = 1", "server: must be a string");
    check("server = \"ftp://x\"", "server: \"ftp://x\" is neither http nor https");
    check("server = \"https://\"", "server: ");
    check("server = \"https://u:p@h\"", "server: ");
    check("server = \"https://h/?a=b\"", "server: ");
    check("host = 1", "host: must be a table");
    check("[host]\na = 1", "host.\"a\": must be a table");
    check("capabilities = [\"fly\"]", "capabilities: \"fly\"");
    check("capabilities = \"pull\"", "capabilities: must be a list");
    check("ca = 1", "ca: must be");
    check("ca = [1]", "ca: must be");
    check("client = 1", "client: must be");
    check("client = [[\"a\"]]", "client: must be");
    check("client = [[\"a\", \"b\", \"c\"]]", "client: must be");
    check("skip_verify = \"yes\"", "skip_verify: must be true or false");
    check("override_path = 1", "override_path: must be true or false");
    check("header = 1", "header: must be a table");
    check("[header]\n\"a b\" = \"x\"", "header.a b: not the name");
    check("[header]\na = 1", "header.a: must be a string");
    check("[header]\na = \"x\\ny\"", "header.a: not a header's value");
    check("dial_timeout = 3", "dial_timeout: must be a string");
    check("dial_timeout = \"3\"", "dial_timeout: \"3\"");
    check("dial_timeout = \"-3s\"", "dial_timeout: \"-3s\"");
    check("[host.\"https://m\"]\nca = 1", "host.\"https://m\".ca: must be");
}

proptest! {
    #[test]
    fn never_panics(text in "\\PC{0,300}") {
        let _ = read(&text);
    }

    #[test]
    fn hosts_keep_the_order_of_the_file(names in proptest::collection::btree_set("[a-z]{1,8}", 1..8).prop_shuffle_vec()) {
        let text: String = names.iter().map(|name| format!("[host.\"https://{name}\"]\n")).collect();
        let got: Vec<String> = read(&text).unwrap().into_iter().map(|host| host.authority).collect();
        prop_assert_eq!(&got[..names.len()], &names[..]);
        prop_assert_eq!(&got[names.len()], "reg.io");
    }

    #[test]
    fn durations_of_go_are_read(minutes in 0u64..60, millis in 1u64..60_000) {
        prop_assert_eq!(
            duration(&format!("{minutes}m{millis}ms")).map(|d| d.as_millis() as u64),
            Some(minutes * 60_000 + millis)
        );
    }
}

trait ShuffleVec: Strategy {
    fn prop_shuffle_vec(self) -> BoxedStrategy<Vec<String>>;
}

impl<S: Strategy<Value = std::collections::BTreeSet<String>> + 'static> ShuffleVec for S {
    fn prop_shuffle_vec(self) -> BoxedStrategy<Vec<String>> {
        self.prop_map(|set| set.into_iter().collect::<Vec<_>>()).prop_shuffle().boxed()
    }
}
