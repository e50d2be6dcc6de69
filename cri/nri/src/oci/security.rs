//! Seccomp filters, both ways.

use serde_json::{Map, Value, json};

use crate::api::{LinuxSeccomp, LinuxSeccompArg, LinuxSyscall, OptionalUInt32};

use super::{
    Result,
    read::{each, number, text, words},
    refuse,
};

/// The filter of a spec's `linux.seccomp`.
pub(super) fn read(from: &Value) -> LinuxSeccomp {
    let errno = |value: &Value| value.as_u64().map(|_| OptionalUInt32 { value: number(value) });
    LinuxSeccomp {
        default_action: text(&from["defaultAction"]),
        default_errno: errno(&from["defaultErrnoRet"]),
        architectures: words(&from["architectures"]),
        flags: words(&from["flags"]),
        listener_path: text(&from["listenerPath"]),
        listener_metadata: text(&from["listenerMetadata"]),
        syscalls: each(&from["syscalls"], |call| LinuxSyscall {
            names: words(&call["names"]),
            action: text(&call["action"]),
            errno_ret: errno(&call["errnoRet"]),
            args: each(&call["args"], |one| LinuxSeccompArg {
                index: number(&one["index"]),
                value: one["value"].as_u64().unwrap_or_default(),
                value_two: one["valueTwo"].as_u64().unwrap_or_default(),
                op: text(&one["op"]),
            }),
        }),
    }
}

/// A filter as a spec has it.
pub(super) fn write(from: &LinuxSeccomp) -> Result<Value> {
    if !from.default_action.starts_with("SCMP_ACT_") {
        return refuse(
            "linux.seccomp_policy.default_action",
            format!("{:?} is no action such as SCMP_ACT_ERRNO", from.default_action),
        );
    }
    let mut filter = Map::new();
    filter.insert("defaultAction".to_owned(), from.default_action.as_str().into());
    if let Some(errno) = &from.default_errno {
        filter.insert("defaultErrnoRet".to_owned(), errno.value.into());
    }
    for (name, list) in [("architectures", &from.architectures), ("flags", &from.flags)] {
        if !list.is_empty() {
            filter.insert(name.to_owned(), list.clone().into());
        }
    }
    for (name, value) in [("listenerPath", &from.listener_path), ("listenerMetadata", &from.listener_metadata)] {
        if !value.is_empty() {
            filter.insert(name.to_owned(), value.as_str().into());
        }
    }
    let calls: Vec<Value> = from.syscalls.iter().map(call).collect();
    if !calls.is_empty() {
        filter.insert("syscalls".to_owned(), calls.into());
    }
    Ok(filter.into())
}

fn call(from: &LinuxSyscall) -> Value {
    let mut call = json!({ "names": from.names, "action": from.action });
    if let Some(errno) = &from.errno_ret {
        call["errnoRet"] = errno.value.into();
    }
    let arg = |arg: &LinuxSeccompArg| json!({ "index": arg.index, "value": arg.value, "valueTwo": arg.value_two, "op": arg.op });
    if !from.args.is_empty() {
        call["args"] = from.args.iter().map(arg).collect();
    }
    call
}
