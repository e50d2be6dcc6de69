//! Seccomp of the spec, compiled to a BPF program: a binary search over the numbers of system calls per architecture, so
//! that a long profile costs a call few instructions. Compiling is pure; the child installs what was compiled.

mod table;

use std::collections::BTreeMap;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};

use crate::error::{Error, Result};

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const RETURN: u16 = 0x06;

const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

const KILL: u32 = 0;
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
/// Where the numbers of x32 begin.
const X32: u32 = 0x4000_0000;

/// The most instructions that the kernel takes.
const MOST: usize = 4096;

/// A filter, ready to install.
#[derive(Clone, Debug)]
pub struct Filter {
    pub(crate) program: Vec<libc::sock_filter>,
    pub(crate) flags: u64,
}

/// What happens to a call of one number: conditional answers in order, then the last word.
#[derive(Clone, Debug, Default, PartialEq)]
struct Verdict {
    conditions: Vec<(Vec<Condition>, u32)>,
    last: Option<u32>,
}

#[derive(Clone, Debug, PartialEq)]
struct Condition {
    index: u32,
    op: LinuxSeccompOperator,
    value: u64,
    mask: u64,
}

/// Compiles the profile for the architecture that this program is built for.
///
/// # Errors
///
/// The field of `linux.seccomp` that can't be honoured.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter> {
    let default = action(profile.default_action(), profile.default_errno_ret(), "linux.seccomp.defaultAction")?;
    if profile.listener_path().is_some() {
        return Err(Error::unsupported("linux.seccomp.listenerPath", "a listener of seccomp notifications"));
    }
    let mut program = vec![instruction(LOAD, 0, 0, ARCH)];
    for block in blocks(profile)? {
        let rules = rules(profile, default, &block)?;
        let stub = stub(profile.default_action(), &rules);
        let mut body = vec![instruction(LOAD, 0, 0, NR)];
        body.extend(search(&intervals(&rules, default, stub, &block)));
        // An architecture that is not this one's skips the block; a jump of a condition reaches only 255 far.
        program.push(instruction(JEQ, 1, 0, block.audit));
        program.push(instruction(JUMP, 0, 0, body.len() as u32));
        program.extend(body);
    }
    program.push(instruction(RETURN, 0, 0, KILL));
    if program.len() > MOST {
        return Err(Error::unsupported(
            "linux.seccomp.syscalls",
            format!("a filter of {} instructions", program.len()),
        ));
    }
    Ok(Filter { program, flags: flags(profile)? })
}

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

fn action(action: LinuxSeccompAction, errno: Option<u32>, field: &str) -> Result<u32> {
    const EPERM: u32 = 1;
    let code = errno.unwrap_or(EPERM);
    if code > 0xffff {
        return Err(Error::invalid(field, format!("{code} is no error number")));
    }
    let carries = matches!(action, LinuxSeccompAction::ScmpActErrno | LinuxSeccompAction::ScmpActTrace);
    if errno.is_some() && !carries {
        return Err(Error::invalid(field, "errnoRet goes only with SCMP_ACT_ERRNO and SCMP_ACT_TRACE"));
    }
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => KILL,
        LinuxSeccompAction::ScmpActKillProcess => 0x8000_0000,
        LinuxSeccompAction::ScmpActTrap => 0x0003_0000,
        LinuxSeccompAction::ScmpActErrno => ERRNO | code,
        LinuxSeccompAction::ScmpActTrace => TRACE | code,
        LinuxSeccompAction::ScmpActLog => 0x7ffc_0000,
        LinuxSeccompAction::ScmpActAllow => 0x7fff_0000,
        LinuxSeccompAction::ScmpActNotify => return Err(Error::unsupported(field, "SCMP_ACT_NOTIFY")),
    })
}

fn flags(profile: &LinuxSeccomp) -> Result<u64> {
    let mut bits = 0;
    for flag in profile.flags().iter().flatten() {
        bits |= match flag {
            // Of one thread only, so nothing is to synchronize.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                return Err(Error::unsupported("linux.seccomp.flags", "a listener of seccomp notifications"));
            }
        };
    }
    Ok(bits)
}

/// A part of the filter: an architecture of the kernel's, and the tables whose calls it takes.
struct Block {
    audit: u32,
    tables: Vec<table::Table>,
}

fn blocks(profile: &LinuxSeccomp) -> Result<Vec<Block>> {
    let mut wanted = vec![table::NATIVE];
    for arch in profile.architectures().iter().flatten() {
        if let Some(table) = table::of(*arch)
            && !wanted.contains(&table)
        {
            wanted.push(table);
        }
        // Of another machine: no process here can ever be of it.
        if *arch == Arch::ScmpArchNative {
            continue;
        }
    }
    let mut blocks: BTreeMap<u32, Vec<table::Table>> = BTreeMap::new();
    for table in wanted {
        blocks.entry(table.audit()).or_default().push(table);
    }
    Ok(blocks.into_iter().rev().map(|(audit, tables)| Block { audit, tables }).collect())
}

fn rules(profile: &LinuxSeccomp, default: u32, block: &Block) -> Result<BTreeMap<u32, Verdict>> {
    let mut rules: BTreeMap<u32, Verdict> = BTreeMap::new();
    for (at, call) in profile.syscalls().iter().flatten().enumerate() {
        let field = format!("linux.seccomp.syscalls[{at}]");
        if call.names().is_empty() {
            return Err(Error::invalid(format!("{field}.names"), "is empty"));
        }
        let answer = action(call.action(), call.errno_ret(), &format!("{field}.action"))?;
        if answer == default {
            continue;
        }
        let alternatives = alternatives(call, &field)?;
        for table in &block.tables {
            // A name that this architecture has no number for names nothing here.
            for number in call.names().iter().filter_map(|name| table.number(name)) {
                let verdict = rules.entry(number).or_default();
                for conditions in &alternatives {
                    if !conditions.is_empty() {
                        verdict.conditions.push((conditions.clone(), answer));
                    } else if verdict.last.is_none() {
                        verdict.last = Some(answer);
                    }
                }
            }
        }
    }
    for verdict in rules.values_mut() {
        // A rule without conditions covers those with.
        if verdict.last.is_some() {
            verdict.conditions.clear();
        }
    }
    Ok(rules)
}

/// The conditions of a rule, all of which must hold; where one argument is named twice, each stands for itself.
fn alternatives(call: &LinuxSyscall, field: &str) -> Result<Vec<Vec<Condition>>> {
    let args = call.args().clone().unwrap_or_default();
    let mut conditions = Vec::with_capacity(args.len());
    for (at, arg) in args.iter().enumerate() {
        conditions.push(condition(arg, &format!("{field}.args[{at}]"))?);
    }
    let twice =
        conditions.iter().enumerate().any(|(at, one)| conditions[..at].iter().any(|other| other.index == one.index));
    Ok(if twice { conditions.into_iter().map(|one| vec![one]).collect() } else { vec![conditions] })
}

fn condition(arg: &LinuxSeccompArg, field: &str) -> Result<Condition> {
    let index = u32::try_from(arg.index()).ok().filter(|index| *index < 6);
    let index = index
        .ok_or_else(|| Error::invalid(format!("{field}.index"), format!("a call has no argument {}", arg.index())))?;
    let masked = arg.op() == LinuxSeccompOperator::ScmpCmpMaskedEq;
    // For the masked comparison the first value is the mask.
    let (value, mask) = if masked { (arg.value_two().unwrap_or(0), arg.value()) } else { (arg.value(), u64::MAX) };
    Ok(Condition { index, op: arg.op(), value, mask })
}

/// Calls that the profile's author could not know (numbers above all that he names) do not exist, rather than being
/// forbidden: programs know what to do about that.
fn stub(default: LinuxSeccompAction, rules: &BTreeMap<u32, Verdict>) -> Option<u32> {
    let permissive = matches!(default, LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog);
    if permissive { None } else { rules.keys().filter(|number| **number < X32).max().map(|last| last + 1) }
}

/// The numbers from zero on, as stretches with one verdict each.
fn intervals(rules: &BTreeMap<u32, Verdict>, default: u32, stub: Option<u32>, block: &Block) -> Vec<(u32, Verdict)> {
    let plain = |answer| Verdict { conditions: Vec::new(), last: Some(answer) };
    let fill = |from: u32| match stub {
        Some(stub) if from >= stub && from < X32 => plain(ERRNO | libc::ENOSYS as u32),
        _ => plain(default),
    };
    let mut stretches: Vec<(u32, Verdict)> = Vec::new();
    let mut push = |from: u32, verdict: Verdict| match stretches.last() {
        Some((_, last)) if *last == verdict => {}
        _ => stretches.push((from, verdict)),
    };
    let mut next = 0_u32;
    for (number, verdict) in rules {
        if *number > next {
            push(next, fill(next));
        }
        if *number >= X32 && next < X32 {
            push(X32, fill(X32));
        }
        let last = verdict.last.unwrap_or(default);
        push(*number, Verdict { conditions: verdict.conditions.clone(), last: Some(last) });
        next = number + 1;
    }
    push(next, fill(next));
    if block.tables.contains(&table::Table::X86_64) {
        if !block.tables.contains(&table::Table::X32) {
            push(X32, plain(KILL));
        } else if next < X32 {
            push(X32, fill(X32));
        }
    }
    stretches
}

/// A tree of comparisons over the stretches.
fn search(stretches: &[(u32, Verdict)]) -> Vec<libc::sock_filter> {
    if let [(_, verdict)] = stretches {
        return leaf(verdict);
    }
    let (left, right) = stretches.split_at(stretches.len() / 2);
    let boundary = right[0].0;
    let (left, right) = (search(left), search(right));
    let mut code = Vec::with_capacity(left.len() + right.len() + 2);
    if let Ok(far) = u8::try_from(left.len()) {
        code.push(instruction(JGE, far, 0, boundary));
    } else {
        code.push(instruction(JGE, 0, 1, boundary));
        code.push(instruction(JUMP, 0, 0, left.len() as u32));
    }
    code.extend(left);
    code.extend(right);
    code
}

fn leaf(verdict: &Verdict) -> Vec<libc::sock_filter> {
    let mut code = Vec::new();
    for (conditions, answer) in &verdict.conditions {
        let mut blocks: Vec<Vec<libc::sock_filter>> = vec![vec![instruction(RETURN, 0, 0, *answer)]];
        // From the back, since each jumps over what is behind it.
        for condition in conditions.iter().rev() {
            let behind = blocks.iter().map(Vec::len).sum::<usize>();
            blocks.push(compare(condition, behind as u8));
        }
        code.extend(blocks.into_iter().rev().flatten());
    }
    code.push(instruction(RETURN, 0, 0, verdict.last.unwrap_or(KILL)));
    code
}

/// Falls through if the condition holds, and jumps over `skip` more instructions if it does not. Arguments have 64 bits,
/// the machine's words 32: the high half decides, unless it is equal.
fn compare(condition: &Condition, skip: u8) -> Vec<libc::sock_filter> {
    let low = ARGS + 8 * condition.index + if cfg!(target_endian = "big") { 4 } else { 0 };
    let high = ARGS + 8 * condition.index + if cfg!(target_endian = "big") { 0 } else { 4 };
    let (value_high, value_low) = ((condition.value >> 32) as u32, condition.value as u32);
    let (mask_high, mask_low) = ((condition.mask >> 32) as u32, condition.mask as u32);
    let load = |at| instruction(LOAD, 0, 0, at);
    use LinuxSeccompOperator as Op;
    match condition.op {
        Op::ScmpCmpEq => {
            vec![load(high), instruction(JEQ, 0, skip + 2, value_high), load(low), instruction(JEQ, 0, skip, value_low)]
        }
        Op::ScmpCmpNe => {
            vec![load(high), instruction(JEQ, 0, 2, value_high), load(low), instruction(JEQ, skip, 0, value_low)]
        }
        Op::ScmpCmpMaskedEq => vec![
            load(high),
            instruction(AND, 0, 0, mask_high),
            instruction(JEQ, 0, skip + 3, value_high),
            load(low),
            instruction(AND, 0, 0, mask_low),
            instruction(JEQ, 0, skip, value_low),
        ],
        Op::ScmpCmpGt | Op::ScmpCmpGe => vec![
            load(high),
            instruction(JGT, 3, 0, value_high),
            instruction(JEQ, 0, skip + 2, value_high),
            load(low),
            instruction(if condition.op == Op::ScmpCmpGt { JGT } else { JGE }, 0, skip, value_low),
        ],
        Op::ScmpCmpLt | Op::ScmpCmpLe => vec![
            load(high),
            instruction(JGT, skip + 3, 0, value_high),
            instruction(JEQ, 0, 2, value_high),
            load(low),
            instruction(if condition.op == Op::ScmpCmpLt { JGE } else { JGT }, skip, 0, value_low),
        ],
    }
}

#[cfg(test)]
mod tests;
