//! Filters are run here by a small machine of our own, over every comparison and over random profiles.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompOperator as Op};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const ALLOW: u32 = 0x7fff_0000;

fn profile(value: serde_json::Value) -> LinuxSeccomp {
    serde_json::from_value(value).unwrap()
}

/// What the kernel would do with the filter.
fn run(filter: &Filter, arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let (mut at, mut acc) = (0_usize, 0_u32);
    loop {
        let one = filter.program[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { one.jt } else { one.jf });
        match one.code {
            LOAD => {
                acc = match one.k {
                    NR => number,
                    ARCH => arch,
                    at => {
                        let at = at - ARGS;
                        let arg = args[at as usize / 8];
                        if at.is_multiple_of(8) { arg as u32 } else { (arg >> 32) as u32 }
                    }
                }
            }
            AND => acc &= one.k,
            JUMP => at += one.k as usize,
            JEQ => at += jump(acc == one.k),
            JGT => at += jump(acc > one.k),
            JGE => at += jump(acc >= one.k),
            RETURN => return one.k,
            code => panic!("no instruction {code}"),
        }
    }
}

fn native() -> u32 {
    table::NATIVE.audit()
}

fn number(name: &str) -> u32 {
    table::NATIVE.number(name).unwrap()
}

#[test]
fn the_usual() {
    let filter = compile(&profile(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": ["read", "write", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
        ]
    })))
    .unwrap();
    let call = |name: &str, first: u64| run(&filter, native(), number(name), [first, 0, 0, 0, 0, 0]);
    assert_eq!(call("read", 0), ALLOW);
    assert_eq!(call("mkdirat", 0), ERRNO | 5);
    assert_eq!(call("close", 0), ERRNO | 1);
    assert_eq!((call("personality", 8), call("personality", 0), call("personality", 1)), (ALLOW, ALLOW, ERRNO | 1));
    assert_eq!(run(&filter, native(), 5000, [0; 6]), ERRNO | libc::ENOSYS as u32, "a call from the future");
    assert_eq!(run(&filter, 0x1234, number("read"), [0; 6]), KILL, "another machine's");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn other_ways_into_the_same_kernel() {
    let rules = json!([{"names": ["read", "ioctl"], "action": "SCMP_ACT_ALLOW"}]);
    let lean = compile(&profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}))).unwrap();
    assert_eq!(run(&lean, native(), X32, [0; 6]), KILL, "x32 was not asked for");
    assert_eq!(run(&lean, 0x4000_0003, 3, [0; 6]), KILL, "nor were 32 bits");
    let architectures = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
    let wide = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": architectures, "syscalls": rules});
    let wide = compile(&profile(wide)).unwrap();
    assert_eq!(run(&wide, 0x4000_0003, 3, [0; 6]), ALLOW, "read of 32 bits");
    assert_eq!(run(&wide, 0x4000_0003, 0, [0; 6]), ERRNO | 1);
    assert_eq!((run(&wide, native(), X32, [0; 6]), run(&wide, native(), X32 | 514, [0; 6])), (ALLOW, ALLOW));
    assert_eq!(run(&wide, native(), X32 | 16, [0; 6]), ERRNO | 1, "the ioctl that is not x32's");
    assert_eq!(run(&wide, native(), u32::MAX, [0; 6]), ERRNO | 1);
}

#[test]
fn a_rule_without_conditions_covers_those_with() {
    let filter = compile(&profile(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["close"], "action": "SCMP_ACT_KILL", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
            {"names": ["close"], "action": "SCMP_ACT_LOG"},
            {"names": ["dup"], "action": "SCMP_ACT_TRAP", "args": [
                {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}]},
        ]
    })))
    .unwrap();
    assert_eq!(run(&filter, native(), number("close"), [1, 0, 0, 0, 0, 0]), 0x7ffc_0000);
    assert_eq!(run(&filter, native(), number("dup"), [2, 0, 0, 0, 0, 0]), 0x0003_0000, "either of one argument");
    assert_eq!(run(&filter, native(), 5000, [0; 6]), ALLOW, "a permissive profile lets the future in");
}

#[test]
fn what_is_refused() {
    for (value, field) in [
        (json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "linux.seccomp.defaultAction"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}), "linux.seccomp.listenerPath"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}), "linux.seccomp.defaultAction"),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_KILL"}]}),
            "linux.seccomp.syscalls[0].names",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["dup"], "action": "SCMP_ACT_KILL",
                "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}),
            "linux.seccomp.syscalls[0].args[0].index",
        ),
    ] {
        assert_eq!(compile(&profile(value)).unwrap_err().field(), Some(field));
    }
}

fn holds(op: Op, arg: u64, value: u64, two: u64) -> bool {
    match op {
        Op::ScmpCmpNe => arg != value,
        Op::ScmpCmpLt => arg < value,
        Op::ScmpCmpLe => arg <= value,
        Op::ScmpCmpEq => arg == value,
        Op::ScmpCmpGe => arg >= value,
        Op::ScmpCmpGt => arg > value,
        Op::ScmpCmpMaskedEq => arg & value == two,
    }
}

const OPS: [&str; 7] =
    ["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"];

/// Numbers that are close to each other in one half or in both.
fn close() -> impl Strategy<Value = u64> {
    (0_u64..3, 0_u64..3, any::<bool>())
        .prop_map(|(high, low, top)| high << 32 | if top { u64::from(u32::MAX) - low } else { low })
}

proptest! {
    #[test]
    fn every_comparison(args in prop::array::uniform6(close()), conditions in prop::collection::vec((0_usize..6, 0_usize..7, close(), close()), 1..6)) {
        let mut used = Vec::new();
        let conditions: Vec<_> = conditions.into_iter().filter(|one| !used.contains(&one.0) && { used.push(one.0); true }).collect();
        let written: Vec<_> = conditions.iter().map(|(index, op, value, two)| json!({"index": index, "value": value, "valueTwo": two, "op": OPS[*op]})).collect();
        let profile = profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["dup"], "action": "SCMP_ACT_TRAP", "args": written}]}));
        let ops: Vec<Op> = profile.syscalls().as_ref().unwrap()[0].args().as_ref().unwrap().iter().map(LinuxSeccompArg::op).collect();
        let all = conditions.iter().zip(&ops).all(|((index, _, value, two), op)| holds(*op, args[*index], *value, *two));
        let answer = run(&compile(&profile).unwrap(), native(), number("dup"), args);
        prop_assert_eq!(answer, if all { 0x0003_0000 } else { ALLOW });
    }

    #[test]
    fn every_number(names in prop::collection::btree_set(0_u32..460, 0..200), probe in 0_u32..600) {
        let name = |number: &u32| syscalls::Sysno::new(*number as usize).map(|call| call.name().to_owned());
        let listed: Vec<String> = names.iter().filter_map(name).collect();
        let known: Vec<u32> = listed.iter().map(|name| number(name)).collect();
        prop_assume!(!listed.is_empty());
        let profile = profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": listed, "action": "SCMP_ACT_ALLOW"}]}));
        let answer = run(&compile(&profile).unwrap(), native(), probe, [0; 6]);
        let expected = if known.contains(&probe) { ALLOW } else if probe > *known.iter().max().unwrap() { ERRNO | libc::ENOSYS as u32 } else { ERRNO | 1 };
        prop_assert_eq!(answer, expected);
    }
}
