//! Tests of results, good and malformed.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn parse(text: &str, version: SpecVersion) -> Result<Answer, String> {
    Answer::parse(text.as_bytes(), version).map_err(|e| crate::error::Chain(&e).to_string())
}

#[test]
fn malformed_results_are_refused_by_field() {
    for (text, want) in [
        ("", "empty answer"),
        (" \n", "empty answer"),
        ("panic: oh", r#"not JSON: "panic: oh": expected value at line 1 column 1"#),
        ("{} {}", r#"not JSON: "{} {}": trailing characters at line 1 column 4"#),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        (r#"{"cniVersion":1}"#, "invalid field: cniVersion: not a string"),
        (r#"{"cniVersion":"2.0.0"}"#, r#"invalid field: cniVersion: "2.0.0" is not a supported version"#),
        (r#"{"interfaces":{}}"#, "invalid field: interfaces: not a list"),
        (r#"{"interfaces":[7]}"#, "invalid field: interfaces[0]: not an object"),
        (r#"{"interfaces":[{}]}"#, "invalid field: interfaces[0].name: missing"),
        (r#"{"interfaces":[{"name":"a\u0000"}]}"#, "invalid field: interfaces[0].name: contains a control character"),
        (r#"{"interfaces":[{"name":"a","mtu":-1}]}"#, "invalid field: interfaces[0].mtu: not a non-negative integer"),
        (r#"{"interfaces":[{"name":"a","mtu":4294967296}]}"#, "invalid field: interfaces[0].mtu: does not fit 32 bits"),
        (r#"{"interfaces":[{"name":"a","mac":7}]}"#, "invalid field: interfaces[0].mac: not a string"),
        (r#"{"ips":[{}]}"#, "invalid field: ips[0].address: missing"),
        (
            r#"{"ips":[{"address":"10.0.0.1"}]}"#,
            r#"invalid field: ips[0].address: "10.0.0.1" is not an address with a prefix length"#,
        ),
        (
            r#"{"ips":[{"address":"10.0.0.256/8"}]}"#,
            r#"invalid field: ips[0].address: "10.0.0.256/8" is not an address with a prefix length"#,
        ),
        (
            r#"{"ips":[{"address":"10.0.0.1/33"}]}"#,
            r#"invalid field: ips[0].address: "10.0.0.1/33" is not an address with a prefix length"#,
        ),
        (
            r#"{"ips":[{"address":"fd00::1/+64"}]}"#,
            r#"invalid field: ips[0].address: "fd00::1/+64" is not an address with a prefix length"#,
        ),
        (
            r#"{"ips":[{"address":"10.0.0.1/8","gateway":"x"}]}"#,
            r#"invalid field: ips[0].gateway: "x" is not an IP address"#,
        ),
        (
            r#"{"ips":[{"address":"10.0.0.1/8","interface":0}]}"#,
            "invalid field: ips[0].interface: index 0 of 0 interfaces",
        ),
        (
            r#"{"interfaces":[{"name":"a"}],"ips":[{"address":"10.0.0.1/8","interface":1}]}"#,
            "invalid field: ips[0].interface: index 1 of 1 interfaces",
        ),
        (
            r#"{"ips":[{"address":"10.0.0.1/8","interface":-1}]}"#,
            "invalid field: ips[0].interface: not a non-negative integer",
        ),
        (r#"{"routes":[{"gw":"10.0.0.1"}]}"#, "invalid field: routes[0].dst: missing"),
        (
            r#"{"routes":[{"dst":"default"}]}"#,
            r#"invalid field: routes[0].dst: "default" is not an address with a prefix length"#,
        ),
        (r#"{"dns":[]}"#, "invalid field: dns: not an object"),
        (r#"{"dns":{"nameservers":["a.b"]}}"#, r#"invalid field: dns.nameservers[0]: "a.b" is not an IP address"#),
        (r#"{"dns":{"search":[1]}}"#, "invalid field: dns.search[0]: not a string"),
    ] {
        assert_eq!(parse(text, SpecVersion::V1_0_0).unwrap_err(), want, "{text}");
    }
}

#[test]
fn malformed_old_results_are_refused_by_field() {
    for (text, version, want) in [
        (
            r#"{"ips":[{"version":4,"address":"10.0.0.1/8"}]}"#,
            SpecVersion::V0_4_0,
            "invalid field: ips[0].version: not a string",
        ),
        (
            r#"{"ips":[{"version":"6","address":"10.0.0.1/8"}]}"#,
            SpecVersion::V0_3_1,
            r#"invalid field: ips[0].version: not "4", which 10.0.0.1 is"#,
        ),
        (r#"{"ip4":{}}"#, SpecVersion::V0_2_0, "invalid field: ip4.ip: missing"),
        (r#"{"ip4":"10.0.0.1/8"}"#, SpecVersion::V0_1_0, "invalid field: ip4: not an object"),
        (
            r#"{"ip6":{"ip":"10.0.0.1/8"}}"#,
            SpecVersion::V0_1_0,
            "invalid field: ip6.ip: 10.0.0.1 is of the other address family",
        ),
        (
            r#"{"ip4":{"ip":"10.0.0.1/8","routes":[{}]}}"#,
            SpecVersion::V0_2_0,
            "invalid field: ip4.routes[0].dst: missing",
        ),
    ] {
        assert_eq!(parse(text, version).unwrap_err(), want, "{text}");
    }
}

#[test]
fn every_version_is_understood() {
    let ip = |index| IpConfig {
        address: "10.1.0.5".parse().unwrap(),
        prefix: 16,
        gateway: Some("10.1.0.1".parse().unwrap()),
        interface: index,
    };
    let old = r#"{"ip4":{"ip":"10.1.0.5/16","gateway":"10.1.0.1","routes":[{"dst":"0.0.0.0/0"}]},"ip6":null}"#;
    for version in [SpecVersion::V0_1_0, SpecVersion::V0_2_0] {
        let answer = parse(old, version).unwrap();
        assert_eq!(answer.version, version);
        assert_eq!(answer.parsed.ips, [ip(None)]);
        assert_eq!(answer.parsed.routes.len(), 1);
        assert_eq!(answer.raw["cniVersion"], version.to_string());
    }
    let new = r#"{"cniVersion":"VERSION","interfaces":[{"name":"cni0"},{"name":"eth0","sandbox":"/n","mtu":1400,
        "mac":"00:11:22:33:44:55","socketPath":"/s","pciID":"0000:00:1f.6","later":true}],
        "ips":[{"version":"4","address":"10.1.0.5/16","gateway":"10.1.0.1","interface":1}],
        "routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.1","mtu":1400,"advmss":1360,"priority":5,"table":100,"scope":253}],
        "dns":{"nameservers":["10.1.0.1"],"domain":"d","search":["s"],"options":["o"]}}"#;
    for version in &SpecVersion::SUPPORTED[2..] {
        // The version of the answer wins over that of the configuration.
        let answer = parse(&new.replace("VERSION", &version.to_string()), SpecVersion::V0_1_0).unwrap();
        assert_eq!(answer.version, *version);
        assert_eq!(answer.parsed.ips, [ip(Some(1))]);
        assert_eq!(answer.parsed.interfaces[1].mtu, Some(1400));
        assert_eq!(answer.parsed.routes[0].scope, Some(253));
        assert_eq!(answer.parsed.dns.search, ["s"]);
        assert_eq!(answer.in_version(*version)["interfaces"][1]["later"], json!(true));
    }
    assert_eq!(
        parse(r#"{"ips":[{"address":"10.1.0.5/16","gateway":""}]}"#, SpecVersion::V1_1_0).unwrap().parsed.ips[0]
            .gateway,
        None
    );
}

#[test]
fn an_old_address_may_lack_its_family() {
    let answer = parse(r#"{"ips":[{"address":"10.0.0.1/8"}]}"#, SpecVersion::V0_3_1).unwrap();
    assert_eq!(answer.in_version(SpecVersion::V0_4_0)["ips"][0]["version"], "4");
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let ip = || any::<IpAddr>().prop_flat_map(|ip| (Just(ip), 0..=if ip.is_ipv4() { 32u8 } else { 128 }));
    let interface = ("[a-z]{1,9}", "[a-f0-9:]{0,17}", any::<Option<u32>>(), "[a-z/]{0,9}");
    let interface =
        interface.prop_map(|(name, mac, mtu, sandbox)| Interface { name, mac, mtu, sandbox, ..Interface::default() });
    let route = (ip(), any::<Option<IpAddr>>(), any::<[Option<u32>; 5]>()).prop_map(|((dst, prefix), gw, n)| Route {
        dst,
        prefix,
        gw,
        mtu: n[0],
        advmss: n[1],
        priority: n[2],
        table: n[3],
        scope: n[4],
    });
    let ips = proptest::collection::vec((ip(), any::<Option<IpAddr>>(), any::<Option<prop::sample::Index>>()), 0..4);
    let dns = (
        proptest::collection::vec(any::<IpAddr>(), 0..3),
        "[a-z.]{0,9}",
        proptest::collection::vec("[a-z]{1,5}", 0..3),
    );
    let lists = (proptest::collection::vec(interface, 0..4), ips, proptest::collection::vec(route, 0..4), dns);
    lists.prop_map(|(interfaces, ips, routes, (nameservers, domain, search))| {
        let place = |index: Option<prop::sample::Index>| {
            index.filter(|_| !interfaces.is_empty()).map(|i| i.index(interfaces.len()))
        };
        let ips = ips
            .into_iter()
            .map(|((address, prefix), gateway, i)| IpConfig { address, prefix, gateway, interface: place(i) })
            .collect();
        Outcome { interfaces, ips, routes, dns: Dns { nameservers, domain, search, options: Vec::new() } }
    })
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = Answer::parse(&bytes, SpecVersion::V1_0_0);
    }

    #[test]
    fn what_is_rendered_is_parsed_back(outcome in outcome(), version in 2usize..7) {
        let version = SpecVersion::SUPPORTED[version];
        let answer = Answer::from_map(render::outcome(&outcome, version), version).unwrap();
        prop_assert_eq!(&answer.parsed, &outcome);
        prop_assert_eq!(answer.version, version);
    }

    #[test]
    fn old_versions_keep_the_first_address_of_each_family(outcome in outcome()) {
        let map = render::outcome(&outcome, SpecVersion::V0_2_0);
        let answer = Answer::from_map(map, SpecVersion::V0_2_0).unwrap();
        for is_ipv4 in [true, false] {
            let first = |o: &Outcome| o.ips.iter().find(|ip| ip.address.is_ipv4() == is_ipv4).map(|ip| ip.address);
            prop_assert_eq!(first(&answer.parsed), first(&outcome));
        }
    }
}
