//! Which devices a container may use: files of the devices controller in version 1, a BPF program in version 2. Both are
//! made from one state, which follows the rules as version 1 of the kernel does.

use std::{collections::BTreeMap, fs, os::fd::AsRawFd as _, path::Path};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use rustix::io::Errno;

use super::set;
use crate::{
    error::{Error, Result},
    sys,
};

const FIELD: &str = "linux.resources.devices";

const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;

const BLOCK: u32 = 1;
const CHAR: u32 = 2;

/// What every container may: make any node, and use the devices that every container has.
const ALWAYS: [(u32, Option<u32>, Option<u32>, u32); 11] = [
    (CHAR, None, None, MKNOD),
    (BLOCK, None, None, MKNOD),
    (CHAR, Some(1), Some(3), READ | WRITE | MKNOD),
    (CHAR, Some(1), Some(5), READ | WRITE | MKNOD),
    (CHAR, Some(1), Some(7), READ | WRITE | MKNOD),
    (CHAR, Some(1), Some(8), READ | WRITE | MKNOD),
    (CHAR, Some(1), Some(9), READ | WRITE | MKNOD),
    (CHAR, Some(5), Some(0), READ | WRITE | MKNOD),
    (CHAR, Some(5), Some(2), READ | WRITE | MKNOD),
    (CHAR, Some(136), None, READ | WRITE | MKNOD),
    (CHAR, Some(10), Some(200), READ | WRITE | MKNOD),
];

/// Type, major, minor; `None` is any.
type Key = (u32, Option<u32>, Option<u32>);

/// The outcome of the rules: a default and what is otherwise.
#[derive(Debug, Default, PartialEq)]
struct State {
    allow: bool,
    exceptions: BTreeMap<Key, u32>,
}

impl State {
    fn new(rules: &[LinuxDeviceCgroup]) -> Result<Self> {
        let mut state = Self::default();
        for (at, rule) in rules.iter().enumerate() {
            state.follow(rule, &format!("{FIELD}[{at}]"))?;
        }
        for (kind, major, minor, access) in ALWAYS {
            state.one(true, (kind, major, minor), access);
        }
        Ok(state)
    }

    fn follow(&mut self, rule: &LinuxDeviceCgroup, field: &str) -> Result<()> {
        let access = access(rule.access().as_deref().unwrap_or("rwm"), field)?;
        let number = |value: Option<i64>, name: &str| match value {
            None | Some(-1) => Ok(None),
            Some(value) => {
                let number = u32::try_from(value).ok().filter(|number| *number <= i32::MAX.cast_unsigned());
                number.map(Some).ok_or_else(|| {
                    Error::invalid(format!("{field}.{name}"), format!("{value} is no number of a device"))
                })
            }
        };
        let (major, minor) = (number(rule.major(), "major")?, number(rule.minor(), "minor")?);
        match rule.typ().unwrap_or(LinuxDeviceType::A) {
            LinuxDeviceType::A if major.is_none() && minor.is_none() && access == READ | WRITE | MKNOD => {
                *self = Self { allow: rule.allow(), exceptions: BTreeMap::new() };
            }
            LinuxDeviceType::A => {
                return Err(Error::invalid(format!("{field}.type"), "\"a\" goes only with any number and all access"));
            }
            LinuxDeviceType::B => self.one(rule.allow(), (BLOCK, major, minor), access),
            LinuxDeviceType::C | LinuxDeviceType::U => self.one(rule.allow(), (CHAR, major, minor), access),
            LinuxDeviceType::P => return Err(Error::invalid(format!("{field}.type"), "a pipe is no device")),
        }
        Ok(())
    }

    fn one(&mut self, allow: bool, key: Key, access: u32) {
        if allow == self.allow {
            if let Some(now) = self.exceptions.get_mut(&key) {
                *now &= !access;
                if *now == 0 {
                    self.exceptions.remove(&key);
                }
            }
        } else {
            *self.exceptions.entry(key).or_default() |= access;
        }
    }
}

fn access(text: &str, field: &str) -> Result<u32> {
    let bit = |letter| match letter {
        'r' => Ok(READ),
        'w' => Ok(WRITE),
        'm' => Ok(MKNOD),
        other => Err(Error::invalid(format!("{field}.access"), format!("{other:?} is none of r, w and m"))),
    };
    let access = text.chars().map(bit).try_fold(0, |all, bit| bit.map(|bit| all | bit))?;
    // Nothing said is everything meant.
    Ok(if access == 0 { READ | WRITE | MKNOD } else { access })
}

pub(super) fn apply_v1(dir: &Path, rules: &[LinuxDeviceCgroup]) -> Result<()> {
    let state = State::new(rules)?;
    let (first, rest) = if state.allow { ("devices.allow", "devices.deny") } else { ("devices.deny", "devices.allow") };
    set(dir, first, "a", "devices")?;
    for ((kind, major, minor), access) in &state.exceptions {
        let number = |value: &Option<u32>| value.map_or("*".to_owned(), |value| value.to_string());
        let mut text = format!("{} {}:{} ", if *kind == BLOCK { 'b' } else { 'c' }, number(major), number(minor));
        text.extend(
            [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
                .iter()
                .filter(|(bit, _)| access & bit != 0)
                .map(|(_, letter)| letter),
        );
        set(dir, rest, &text, "devices")?;
    }
    Ok(())
}

/// An instruction of eBPF.
fn instruction(code: u8, to: u8, from: u8, offset: i16, value: u32) -> u64 {
    u64::from(code) | u64::from(from << 4 | to) << 8 | u64::from(offset.cast_unsigned()) << 16 | u64::from(value) << 32
}

const LOAD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const COPY: u8 = 0xbf; // BPF_ALU64 | BPF_MOV | BPF_X
const PUT: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
const AND: u8 = 0x57; // BPF_ALU64 | BPF_AND | BPF_K
const SHIFT: u8 = 0x77; // BPF_ALU64 | BPF_RSH | BPF_K
const JEQ: u8 = 0x15;
const JNE: u8 = 0x55;
const EXIT: u8 = 0x95;

fn program(state: &State) -> Vec<u64> {
    // r3: type, r4: access, r5: major, r2: minor; r1 is free once they are loaded.
    let mut code = vec![
        instruction(LOAD, 3, 1, 0, 0),
        instruction(COPY, 4, 3, 0, 0),
        instruction(AND, 3, 0, 0, 0xffff),
        instruction(SHIFT, 4, 0, 0, 16),
        instruction(LOAD, 5, 1, 4, 0),
        instruction(LOAD, 2, 1, 8, 0),
    ];
    for ((kind, major, minor), access) in &state.exceptions {
        let mut tests = vec![(JNE, 3, *kind)];
        tests.extend(major.map(|major| (JNE, 5, major)));
        tests.extend(minor.map(|minor| (JNE, 2, minor)));
        // All that is asked for must be allowed, any of it may be denied.
        let (mask, test) = if state.allow { (*access, JEQ) } else { (!*access & (READ | WRITE | MKNOD), JNE) };
        let length = tests.len() + 5;
        for (at, (jump, register, value)) in tests.iter().enumerate() {
            code.push(instruction(*jump, *register, 0, (length - at - 1) as i16, *value));
        }
        code.push(instruction(COPY, 1, 4, 0, 0));
        code.push(instruction(AND, 1, 0, 0, mask));
        code.push(instruction(test, 1, 0, 2, 0));
        code.push(instruction(PUT, 0, 0, 0, u32::from(!state.allow)));
        code.push(instruction(EXIT, 0, 0, 0, 0));
    }
    code.push(instruction(PUT, 0, 0, 0, u32::from(state.allow)));
    code.push(instruction(EXIT, 0, 0, 0, 0));
    code
}

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    kind: u32,
    flags: u32,
    attached: u32,
    ids: u64,
    count: u32,
    pad: u32,
}

const DEVICE_PROGRAM: u32 = 15;
const DEVICE_ATTACH: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// Puts the program for the rules on the cgroup, then takes those off that were there: never is there none.
pub(super) fn apply_v2(dir: &Path, rules: &[LinuxDeviceCgroup]) -> Result<()> {
    let code = program(&State::new(rules)?);
    let target = fs::File::open(dir).map_err(|err| Error::failed(FIELD, format!("open {}", dir.display()), err))?;
    let target = target.as_raw_fd().cast_unsigned();
    let failed = |doing: &str, err: Errno| Error::failed(FIELD, doing, err);
    let before = attached(target).map_err(|err| failed("list the programs", err))?;
    let mut load = Load {
        kind: DEVICE_PROGRAM,
        count: code.len() as u32,
        instructions: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..Load::default()
    };
    let loaded = sys::own(sys::bpf(5, &mut load).map_err(|err| failed("load the program", err))?);
    let mut attach =
        Attach { target, program: loaded.as_raw_fd().cast_unsigned(), kind: DEVICE_ATTACH, flags: ALLOW_MULTI };
    sys::bpf(8, &mut attach).map_err(|err| failed("attach the program", err))?;
    for id in before {
        let Ok(old) = sys::bpf(13, &mut [id, 0, 0]).map(sys::own) else { continue };
        let mut detach = Attach { target, program: old.as_raw_fd().cast_unsigned(), kind: DEVICE_ATTACH, flags: 0 };
        sys::bpf(9, &mut detach).map_err(|err| failed("detach the program", err))?;
    }
    Ok(())
}

fn attached(target: u32) -> Result<Vec<u32>, Errno> {
    let mut ids = vec![0_u32; 64];
    let mut query = Query {
        target,
        kind: DEVICE_ATTACH,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        ..Query::default()
    };
    sys::bpf(16, &mut query)?;
    ids.truncate(query.count as usize);
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What the kernel would do with the program.
    fn run(code: &[u64], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let mut registers = [0_u64; 11];
        let mut at = 0_usize;
        loop {
            let one = code[at];
            at += 1;
            let (to, from) = ((one >> 8 & 15) as usize, (one >> 12 & 15) as usize);
            let (offset, value) = (usize::from((one >> 16) as u16), one >> 32);
            match one as u8 {
                LOAD => registers[to] = u64::from([access << 16 | kind, major, minor][offset / 4]),
                COPY => registers[to] = registers[from],
                PUT => registers[to] = value,
                AND => registers[to] &= value,
                SHIFT => registers[to] >>= value,
                JEQ => at += if registers[to] == value { offset } else { 0 },
                JNE => at += if registers[to] == value { 0 } else { offset },
                EXIT => return registers[0] == 1,
                code => panic!("no instruction {code}"),
            }
        }
    }

    fn rules(value: serde_json::Value) -> Vec<LinuxDeviceCgroup> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn deny_all_but_a_few() {
        let rules = rules(json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "r"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "w"},
        ]));
        let code = program(&State::new(&rules).unwrap());
        assert!(run(&code, CHAR, READ | WRITE, 1, 3) && run(&code, CHAR, READ, 136, 7), "what everybody may");
        assert!(run(&code, CHAR, READ | WRITE, 10, 229), "two rules add up");
        assert!(!run(&code, CHAR, READ, 10, 201) && !run(&code, BLOCK, READ, 1, 3) && run(&code, BLOCK, MKNOD, 8, 0));
    }

    #[test]
    fn allow_all_but_a_few() {
        let rules = rules(json!([{"allow": true}, {"allow": false, "type": "b", "major": 8, "access": "w"}]));
        let code = program(&State::new(&rules).unwrap());
        assert!(
            run(&code, BLOCK, READ, 8, 1) && !run(&code, BLOCK, READ | WRITE, 8, 1) && run(&code, CHAR, WRITE, 10, 200)
        );
    }

    #[test]
    fn what_is_refused() {
        for (rule, field) in [
            (json!({"allow": true, "type": "c", "access": "rx"}), "linux.resources.devices[0].access"),
            (json!({"allow": true, "type": "c", "major": -5}), "linux.resources.devices[0].major"),
            (json!({"allow": true, "type": "a", "major": 5}), "linux.resources.devices[0].type"),
            (json!({"allow": true, "type": "p"}), "linux.resources.devices[0].type"),
        ] {
            assert_eq!(State::new(&rules(json!([rule]))).unwrap_err().field(), Some(field));
        }
    }

    proptest! {
        #[test]
        fn the_program_says_what_the_state_says(
            all in any::<bool>(),
            list in prop::collection::vec((any::<bool>(), 1_u32..3, prop::option::of(0_u32..3), prop::option::of(0_u32..3), 1_u32..8), 0..8),
            (kind, access, major, minor) in (1_u32..3, 1_u32..8, 0_u32..3, 0_u32..3),
        ) {
            let mut state = State { allow: all, exceptions: BTreeMap::new() };
            for (allow, kind, major, minor, access) in list {
                state.one(allow, (kind, major, minor), access);
            }
            let matching = || state.exceptions.iter().filter(|((k, ma, mi), _)| *k == kind && ma.is_none_or(|m| m == major) && mi.is_none_or(|m| m == minor));
            let expected = if all { !matching().any(|(_, bits)| bits & access != 0) } else { matching().any(|(_, bits)| access & !bits == 0) };
            prop_assert_eq!(run(&program(&state), kind, access, major, minor), expected);
        }
    }
}
