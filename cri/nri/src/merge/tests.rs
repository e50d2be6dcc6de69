//! What comes of the adjustments and updates of several plugins.

use std::collections::BTreeMap;

use super::*;
use crate::api::{
    CdiDevice, Container, ContainerAdjustment, ContainerEviction, ContainerUpdate, CreateContainerRequest,
    CreateContainerResponse, Field, Hook, Hooks, HugepageLimit, KeyValue, LinuxContainerAdjustment,
    LinuxContainerUpdate, LinuxCpu, LinuxDevice, LinuxMemory, LinuxNamespace, LinuxNetDevice, LinuxPids, LinuxRdt,
    LinuxResources, LinuxScheduler, LinuxSeccomp, Mount, OptionalInt, OptionalInt64, OptionalString, PosixRlimit,
};

type Adjustment = ContainerAdjustment;

fn strings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn linux(linux: LinuxContainerAdjustment) -> Adjustment {
    Adjustment { linux: Some(linux), ..Adjustment::default() }
}

fn annotations(pairs: &[(&str, &str)]) -> Adjustment {
    Adjustment { annotations: strings(pairs), ..Adjustment::default() }
}

fn mount(destination: &str, source: &str) -> Mount {
    Mount { destination: destination.to_owned(), source: source.to_owned(), ..Mount::default() }
}

fn mounts(all: &[(&str, &str)]) -> Adjustment {
    let mounts = all.iter().map(|(destination, source)| mount(destination, source)).collect();
    Adjustment { mounts, ..Adjustment::default() }
}

fn env(all: &[(&str, &str)]) -> Adjustment {
    let env = all.iter().map(|(key, value)| KeyValue { key: (*key).to_owned(), value: (*value).to_owned() }).collect();
    Adjustment { env, ..Adjustment::default() }
}

fn args(all: &[&str]) -> Adjustment {
    Adjustment { args: all.iter().map(|arg| (*arg).to_owned()).collect(), ..Adjustment::default() }
}

fn sysctl(pairs: &[(&str, &str)]) -> Adjustment {
    linux(LinuxContainerAdjustment { sysctl: strings(pairs), ..Default::default() })
}

fn device(path: &str, major: i64) -> Adjustment {
    let device = LinuxDevice { path: path.to_owned(), major, ..LinuxDevice::default() };
    linux(LinuxContainerAdjustment { devices: vec![device], ..Default::default() })
}

fn namespace(kind: &str, path: &str) -> Adjustment {
    let namespace = LinuxNamespace { r#type: kind.to_owned(), path: path.to_owned() };
    linux(LinuxContainerAdjustment { namespaces: vec![namespace], ..Default::default() })
}

fn resources(resources: LinuxResources) -> Adjustment {
    linux(LinuxContainerAdjustment { resources: Some(resources), ..Default::default() })
}

fn memory(limit: i64) -> LinuxResources {
    let memory = LinuxMemory { limit: Some(OptionalInt64 { value: limit }), ..LinuxMemory::default() };
    LinuxResources { memory: Some(memory), ..LinuxResources::default() }
}

fn cpus(cpus: &str) -> LinuxResources {
    LinuxResources { cpu: Some(LinuxCpu { cpus: cpus.to_owned(), ..LinuxCpu::default() }), ..Default::default() }
}

fn rdt(rdt: LinuxRdt) -> Adjustment {
    linux(LinuxContainerAdjustment { rdt: Some(rdt), ..Default::default() })
}

fn class(name: &str) -> LinuxRdt {
    LinuxRdt { clos_id: Some(OptionalString { value: name.to_owned() }), ..LinuxRdt::default() }
}

fn container() -> Container {
    Container {
        id: "new".to_owned(),
        annotations: strings(&[("own", "1")]),
        args: vec!["sh".to_owned()],
        env: vec!["OWN=1".to_owned(), "PATH=/bin".to_owned()],
        mounts: vec![mount("/own", "/a"), mount("/proc", "proc")],
        ..Container::default()
    }
}

/// A creation after the plugins `10-a`, `20-b`, … have answered; the error is that of the first who is refused.
fn after(answers: Vec<Adjustment>) -> Result<Creation, String> {
    let request = CreateContainerRequest { container: Some(container()), ..Default::default() };
    let mut creation = Creation::new(request);
    for (index, adjust) in answers.into_iter().enumerate() {
        let plugin = format!("{}0-{}", index + 1, char::from(b'a' + u8::try_from(index).unwrap()));
        let answer = CreateContainerResponse { adjust: Some(adjust), ..Default::default() };
        creation.apply(&plugin, answer).map_err(|error| error.to_string())?;
    }
    Ok(creation)
}

#[test]
fn what_two_plugins_set_is_a_conflict() {
    let one = |value: LinuxContainerAdjustment| linux(value);
    let limit = |kind: &str| Adjustment {
        rlimits: vec![PosixRlimit { r#type: kind.to_owned(), hard: 2, soft: 1 }],
        ..Adjustment::default()
    };
    let cdi =
        |name: &str| Adjustment { cdi_devices: vec![CdiDevice { name: name.to_owned() }], ..Adjustment::default() };
    let pages = |size: &str| {
        resources(LinuxResources {
            hugepage_limits: vec![HugepageLimit { page_size: size.to_owned(), limit: 1 }],
            ..LinuxResources::default()
        })
    };
    let net = |name: &str| {
        one(LinuxContainerAdjustment {
            net_devices: [(name.to_owned(), LinuxNetDevice::default())].into(),
            ..Default::default()
        })
    };
    let conflict = |what: &str| format!("plugins \"20-b\" and \"10-a\" both tried to set {what}");
    let score = OptionalInt { value: 1 };
    for (first, second, expected) in [
        (annotations(&[("k", "1")]), annotations(&[("k", "2")]), conflict("Annotations k")),
        (annotations(&[("k", "1")]), annotations(&[("l", "2")]), String::new()),
        (mounts(&[("/m", "/a")]), mounts(&[("/m", "/b")]), conflict("Mounts /m")),
        (mounts(&[("/m", "/a")]), mounts(&[("/n", "/b")]), String::new()),
        (env(&[("A", "1")]), env(&[("A", "1")]), conflict("Env A")),
        (env(&[("A", "1")]), env(&[("B", "1")]), String::new()),
        (args(&["x"]), args(&["y"]), conflict("Args")),
        (args(&["x"]), args(&["", "y"]), String::new()),
        (device("/dev/x", 1), device("/dev/x", 2), conflict("Devices /dev/x")),
        (sysctl(&[("a", "1")]), sysctl(&[("a", "2")]), conflict("Sysctl a")),
        (namespace("network", "/a"), namespace("-network", ""), conflict("Namespace network")),
        (namespace("network", "/a"), namespace("ipc", ""), String::new()),
        (limit("RLIMIT_CORE"), limit("RLIMIT_CORE"), conflict("Rlimits RLIMIT_CORE")),
        (limit("RLIMIT_CORE"), limit("RLIMIT_CPU"), String::new()),
        (cdi("v/c=x"), cdi("v/c=x"), conflict("CdiDevices v/c=x")),
        (pages("2MB"), pages("2MB"), conflict("HugepageLimits 2MB")),
        (pages("2MB"), pages("1GB"), String::new()),
        (net("eth1"), net("eth1"), conflict("LinuxNetDevices eth1")),
        (resources(memory(1)), resources(memory(1)), conflict("MemLimit")),
        (resources(memory(1)), resources(cpus("0")), String::new()),
        (resources(cpus("0")), resources(cpus("1")), conflict("CPUSetCPUs")),
        (
            resources(LinuxResources { pids: Some(LinuxPids { limit: 1 }), ..Default::default() }),
            resources(LinuxResources { pids: Some(LinuxPids { limit: 2 }), ..Default::default() }),
            conflict("PidsLimit"),
        ),
        (
            resources(LinuxResources { unified: strings(&[("memory.high", "1")]), ..Default::default() }),
            resources(LinuxResources { unified: strings(&[("memory.high", "2")]), ..Default::default() }),
            conflict("CgroupsUnified memory.high"),
        ),
        (
            one(LinuxContainerAdjustment { cgroups_path: "/a".to_owned(), ..Default::default() }),
            one(LinuxContainerAdjustment { cgroups_path: "/b".to_owned(), ..Default::default() }),
            conflict("CgroupsPath"),
        ),
        (
            one(LinuxContainerAdjustment { oom_score_adj: Some(score), ..Default::default() }),
            one(LinuxContainerAdjustment { oom_score_adj: Some(score), ..Default::default() }),
            conflict("OomScoreAdj"),
        ),
        (
            one(LinuxContainerAdjustment { seccomp_policy: Some(LinuxSeccomp::default()), ..Default::default() }),
            one(LinuxContainerAdjustment { seccomp_policy: Some(LinuxSeccomp::default()), ..Default::default() }),
            conflict("SeccompPolicy"),
        ),
        (
            one(LinuxContainerAdjustment { scheduler: Some(LinuxScheduler::default()), ..Default::default() }),
            one(LinuxContainerAdjustment { scheduler: Some(LinuxScheduler::default()), ..Default::default() }),
            conflict("LinuxSched"),
        ),
        (rdt(class("a")), rdt(class("b")), conflict("RdtClosID")),
        (rdt(class("a")), rdt(LinuxRdt { remove: true, ..class("b") }), String::new()),
    ] {
        let said = after(vec![first.clone(), second.clone()]).err().unwrap_or_default();
        assert_eq!(said, expected, "{first:?}\n{second:?}");
    }
}

#[test]
fn what_was_removed_belongs_to_who_removed_it() {
    let put = |key: &str| annotations(&[(key, "x")]);
    let replace = |key: &str| {
        let gone = format!("-{key}");
        annotations(&[(gone.as_str(), ""), (key, "y")])
    };
    assert!(after(vec![put("k"), replace("k")]).is_ok());
    let said = after(vec![put("k"), replace("k"), put("k")]).unwrap_err();
    assert_eq!(said, "plugins \"30-c\" and \"20-b\" both tried to set Annotations k");
    // Whoever takes something away keeps others from putting it back.
    let said = after(vec![mounts(&[("/m", "/a")]), mounts(&[("-/m", "")]), mounts(&[("/m", "/c")])]).unwrap_err();
    assert_eq!(said, "plugins \"30-c\" and \"20-b\" both tried to set Mounts /m");
}

#[test]
fn later_plugins_are_shown_what_earlier_ones_adjusted() {
    let mut first = env(&[("NEW", "1"), ("-OWN", "")]);
    first.annotations = strings(&[("new", "1"), ("-own", "")]);
    first.mounts = vec![mount("/own", "/b"), mount("/new", "/n"), mount("-/proc", "")];
    first.args = vec!["exec".to_owned()];
    first.rlimits = vec![PosixRlimit { r#type: "RLIMIT_CORE".to_owned(), hard: 2, soft: 1 }];
    let mut limits = memory(7);
    limits.cpu = cpus("0-1").cpu;
    first.linux = Some(LinuxContainerAdjustment { resources: Some(limits.clone()), ..Default::default() });
    let creation = after(vec![first]).unwrap();
    let shown = creation.request().container.clone().unwrap();
    assert_eq!(shown.env, ["PATH=/bin", "NEW=1"]);
    assert_eq!(shown.annotations, strings(&[("new", "1")]));
    assert_eq!(shown.mounts, [mount("/own", "/b"), mount("/new", "/n")]);
    assert_eq!(shown.args, ["exec"]);
    assert_eq!(shown.rlimits.len(), 1);
    assert_eq!(shown.linux.unwrap().resources, Some(limits));
    let created = creation.finish();
    assert_eq!(created.adjust.annotations, strings(&[("-own", ""), ("new", "1")]));
    assert_eq!(created.adjust.env.len(), 2, "the removal is kept: {:?}", created.adjust.env);
    let owners = created.owners.owners["new"].clone();
    assert_eq!(owners.simple[&(Field::MemLimit as i32)], "10-a");
    assert_eq!(owners.compound[&(Field::Mounts as i32)].owners["/new"], "10-a");
}

#[test]
fn hooks_come_from_all() {
    let hook = |path: &str| Hook { path: path.to_owned(), ..Hook::default() };
    let of = |path: &str| Adjustment {
        hooks: Some(Hooks { prestart: vec![hook(path)], ..Hooks::default() }),
        ..Adjustment::default()
    };
    let created = after(vec![of("/a"), Adjustment { hooks: Some(Hooks::default()), ..Default::default() }, of("/c")]);
    let created = created.unwrap().finish();
    assert_eq!(created.adjust.hooks.unwrap().prestart, [hook("/a"), hook("/c")]);
    assert_eq!(created.owners.owners["new"].simple[&(Field::OciHooks as i32)], "10-a,30-c");
}

fn update(container: &str, limits: LinuxResources, ignore_failure: bool) -> ContainerUpdate {
    ContainerUpdate {
        container_id: container.to_owned(),
        linux: Some(LinuxContainerUpdate { resources: Some(limits) }),
        ignore_failure,
    }
}

#[test]
fn updates_of_one_container_come_together() {
    let mut changes = Changes::of("target", memory(100));
    changes.apply("10-a", vec![update("x", memory(1), false), update("target", cpus("0"), false)], vec![]).unwrap();
    let both = LinuxResources { cpu: cpus("0").cpu, ..memory(100) };
    assert_eq!(changes.target(), Some(&both), "later plugins see it");
    changes.apply("20-b", vec![update("x", cpus("1"), true), update("y", memory(3), true)], vec![]).unwrap();
    let refused = changes.apply("30-c", vec![update("x", memory(2), false)], vec![]).unwrap_err();
    assert_eq!(refused.to_string(), "plugins \"30-c\" and \"10-a\" both tried to set MemLimit");
    // One that may fail is left out as a whole.
    let mut more = memory(9);
    more.cpu = Some(LinuxCpu { mems: "0".to_owned(), ..LinuxCpu::default() });
    changes.apply("30-c", vec![update("x", more, true)], vec![]).unwrap();
    let changed = changes.finish();
    let of_x = LinuxResources { cpu: cpus("1").cpu, ..memory(1) };
    assert_eq!(changed.updates, [update("x", of_x, false), update("y", memory(3), true)]);
    assert_eq!(changed.target, Some(both));
}

#[test]
fn what_nobody_changed_is_not_changed() {
    let mut changes = Changes::of("target", memory(100));
    changes.apply("10-a", vec![update("x", memory(1), false)], vec![]).unwrap();
    assert_eq!(changes.finish().target, None);
}

#[test]
fn evictions_are_collected_once() {
    let evict = |reason: &str| ContainerEviction { container_id: "x".to_owned(), reason: reason.to_owned() };
    let mut changes = Changes::new();
    changes.apply("10-a", vec![], vec![evict("first")]).unwrap();
    changes.apply("20-b", vec![], vec![evict("second")]).unwrap();
    assert_eq!(changes.finish().evict, [evict("first")]);
}

#[test]
fn a_container_that_is_made_is_adjusted_and_not_updated() {
    let mut creation = after(vec![]).unwrap();
    let answer = CreateContainerResponse { update: vec![update("new", memory(1), true)], ..Default::default() };
    let refused = creation.apply("10-a", answer).unwrap_err();
    assert_eq!(refused.to_string(), "plugin \"10-a\" asked to update container new while it is made");
}
