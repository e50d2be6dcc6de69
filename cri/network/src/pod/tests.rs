//! Tests of requests.

use super::*;
use crate::SpecVersion;

fn pod() -> PodNetwork {
    PodNetwork {
        id: "s1".into(),
        name: "web".into(),
        namespace: "ns".into(),
        uid: "u".into(),
        netns: "/n".into(),
        ..PodNetwork::default()
    }
}

#[test]
fn arguments_of_a_pod() {
    let mut pod = pod();
    pod.extra_args = vec![("IP".into(), "10.0.0.9".into())];
    pod.bandwidth = Some(Bandwidth { ingress_rate: 1_000_000, egress_rate: 0 });
    pod.dns = Some(PodDns { servers: vec!["10.0.0.10".into()], ..PodDns::default() });
    pod.cgroup_parent = "/kubepods/pod1".into();
    pod.capability_args.insert("mac".into(), json!("02:00:00:00:00:01"));
    let attachment = pod.attachment("eth0").unwrap();
    let args: Vec<_> = attachment.args.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        args,
        [
            "IgnoreUnknown=1",
            "K8S_POD_NAMESPACE=ns",
            "K8S_POD_NAME=web",
            "K8S_POD_INFRA_CONTAINER_ID=s1",
            "K8S_POD_UID=u",
            "IP=10.0.0.9"
        ]
    );
    assert_eq!(
        json!(attachment.capability_args),
        json!({
            "bandwidth": {"ingressRate": 1_000_000, "ingressBurst": 2_147_483_647},
            "dns": {"servers": ["10.0.0.10"], "searches": [], "options": []},
            "cgroupPath": "/kubepods/pod1",
            "mac": "02:00:00:00:00:01",
        })
    );
    pod.extra_args = vec![("K8S_POD_NAME".into(), "other".into())];
    assert_eq!(pod.attachment("eth0").unwrap_err().to_string(), "args.K8S_POD_NAME: given twice");
    pod.extra_args = vec![("A".into(), "x;B=1".into())];
    assert_eq!(
        pod.attachment("eth0").unwrap_err().to_string(),
        "args.A: the value contains ';' or a control character"
    );
}

fn joined(text: &str) -> Joined {
    let answer = Answer::parse(text.as_bytes(), SpecVersion::V1_0_0).unwrap();
    Joined { network: "n".into(), ifname: "eth0".into(), answer }
}

#[test]
fn the_address_of_a_pod() {
    let check = |text: &str, preference, want: &[&str]| {
        let status = PodNetworkStatus::new("/n", &[joined(text)], preference);
        let got: Vec<String> = status.map(|s| s.ips.iter().map(ToString::to_string).collect()).unwrap_or_default();
        assert_eq!(got, want, "{text}");
    };
    let two = r#"{"ips":[{"address":"fd00::1/64"},{"address":"fd00::2/64"},{"address":"10.0.0.1/8"}]}"#;
    check(two, IpPreference::Ipv4, &["10.0.0.1", "fd00::1", "fd00::2"]);
    check(two, IpPreference::Ipv6, &["fd00::1", "fd00::2", "10.0.0.1"]);
    check(two, IpPreference::Cni, &["fd00::1", "fd00::2", "10.0.0.1"]);
    check(r#"{"ips":[{"address":"fd00::1/64"}]}"#, IpPreference::Ipv4, &["fd00::1"]);
    check("{}", IpPreference::Ipv4, &[]);
    let host = r#"{"interfaces":[{"name":"br0"},{"name":"eth0","sandbox":"/n"}],
        "ips":[{"address":"10.0.0.1/8","interface":0},{"address":"10.0.0.2/8","interface":1}]}"#;
    check(host, IpPreference::Ipv4, &["10.0.0.2"]);
    let renamed = r#"{"interfaces":[{"name":"br0"},{"name":"tap0","sandbox":"/n"}],
        "ips":[{"address":"10.0.0.1/8","interface":0},{"address":"10.0.0.2/8","interface":1}]}"#;
    check(renamed, IpPreference::Ipv4, &["10.0.0.2"]);
    check(r#"{"interfaces":[{"name":"br0"}],"ips":[{"address":"10.0.0.1/8","interface":0}]}"#, IpPreference::Ipv4, &[]);
}

#[test]
fn a_plugin_that_names_no_interface_still_has_one() {
    let status =
        PodNetworkStatus::new("/n", &[joined(r#"{"ips":[{"address":"10.0.0.1/8"}]}"#)], IpPreference::Ipv4).unwrap();
    let names: Vec<_> = status.interfaces.iter().map(|i| (i.name.as_str(), i.sandbox.as_str())).collect();
    assert_eq!(names, [("lo", "/n"), ("eth0", "/n")]);
    assert_eq!(status.interfaces[1].ips, [PodIp { address: "10.0.0.1".parse().unwrap(), prefix: 8, gateway: None }]);
}
