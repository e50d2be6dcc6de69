//! The process: arguments, environment, directory and terminal, of a container and of commands run in it.

use serde_json::Value;

use crate::{
    base::PATH,
    document::Spec,
    error::{Error, Result, invalid},
    input::{Container, ImageConfig, Node, Pod},
};

/// The process of another command in the container that `spec` made: the container's process with other arguments.
/// Without the terminal's variable unless it has one. For `Task.Exec`.
pub fn exec(spec: &Value, args: &[String], tty: bool) -> Result<Value> {
    check_args("cmd", args)?;
    if args.is_empty() {
        return invalid("cmd", "no command");
    }
    let Some(process) = spec.get("process").filter(|process| process.is_object()) else {
        return Err(Error::Shape { path: "process".into(), expected: "an object" });
    };
    let mut process = process.clone();
    process["args"] = args.into();
    process["terminal"] = tty.into();
    if let Some(members) = process.as_object_mut() {
        members.shift_remove("commandLine");
        members.shift_remove("consoleSize");
    }
    if tty {
        let have = process["env"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut env: Vec<String> = have.iter().filter_map(|entry| entry.as_str().map(String::from)).collect();
        put(&mut env, TERM);
        process["env"] = env.into();
    }
    Ok(process)
}

const TERM: &str = "TERM=xterm";

/// Everything about a container's process but its rights.
pub(crate) fn of_container(
    spec: &mut Spec,
    pod: &Pod,
    container: &Container,
    image: &ImageConfig,
    node: &Node,
) -> Result<()> {
    spec.set("process/args", args(container, image)?)?;
    directory(spec, [("working_dir", &container.working_dir), ("image config WorkingDir", &image.working_dir)])?;
    let mut env = base_env(spec)?;
    put(&mut env, PATH);
    if container.tty {
        spec.set("process/terminal", true)?;
        put(&mut env, TERM);
    }
    let hostname = if pod.hostname.is_empty() { &node.hostname } else { &pod.hostname };
    put(&mut env, &format!("HOSTNAME={hostname}"));
    for entry in &image.env {
        put(&mut env, entry);
    }
    for (index, (key, value)) in container.env.iter().enumerate() {
        if key.is_empty() || key.contains(['=', '\0']) {
            return invalid(format!("envs[{index}].key"), format!("{key:?} is no name for a variable"));
        }
        if value.contains(&0) {
            return invalid(format!("envs[{index}].value"), "has a NUL in it");
        }
        put(&mut env, &format!("{key}={}", String::from_utf8_lossy(value)));
    }
    spec.set("process/env", env)
}

/// The pause process: what its image says, nothing else.
pub(crate) fn of_sandbox(spec: &mut Spec, image: &ImageConfig) -> Result<()> {
    let args: Vec<String> = image.entrypoint.iter().chain(&image.cmd).cloned().collect();
    if args.is_empty() {
        return invalid("sandbox image", "it has neither an entrypoint nor a command");
    }
    check_args("sandbox image", &args)?;
    spec.set("process/args", args)?;
    directory(spec, [("sandbox image WorkingDir", &image.working_dir)])?;
    let mut env = base_env(spec)?;
    for entry in &image.env {
        put(&mut env, entry);
    }
    spec.set("process/env", env)
}

/// Kubernetes' table: the request's command replaces the image's entrypoint and command, its arguments replace the
/// image's command only. An entrypoint of one empty string is none.
fn args(container: &Container, image: &ImageConfig) -> Result<Vec<String>> {
    check_args("command", &container.command)?;
    check_args("args", &container.args)?;
    let mut all = container.command.clone();
    let mut rest = &container.args;
    if all.is_empty() {
        if rest.is_empty() {
            rest = &image.cmd;
        }
        if image.entrypoint != [""] {
            all.clone_from(&image.entrypoint);
        }
    }
    all.extend_from_slice(rest);
    if all.is_empty() {
        return invalid("command", "neither the request nor the image names a command");
    }
    check_args("command", &all)?;
    Ok(all)
}

fn check_args(field: &str, args: &[String]) -> Result<()> {
    match args.iter().position(|arg| arg.contains('\0')) {
        Some(index) => invalid(format!("{field}[{index}]"), "has a NUL in it"),
        None => Ok(()),
    }
}

/// The first of the candidates that is not empty.
fn directory<const N: usize>(spec: &mut Spec, candidates: [(&str, &String); N]) -> Result<()> {
    let Some((field, path)) = candidates.into_iter().find(|(_, path)| !path.is_empty()) else { return Ok(()) };
    if !path.starts_with('/') || path.contains('\0') {
        return invalid(field, format!("{path:?} is not an absolute path"));
    }
    spec.set("process/cwd", path.as_str())
}

fn base_env(spec: &mut Spec) -> Result<Vec<String>> {
    Ok(spec.list("process/env")?.iter().filter_map(|entry| entry.as_str().map(String::from)).collect())
}

/// Sets a variable where it was, else at the end. Without `=` it is removed.
fn put(env: &mut Vec<String>, entry: &str) {
    let key = entry.split('=').next().unwrap_or_default();
    let found = env.iter().position(|have| have.split('=').next() == Some(key));
    match (found, entry.contains('=')) {
        (Some(index), true) => entry.clone_into(&mut env[index]),
        (Some(index), false) => drop(env.remove(index)),
        (None, true) => env.push(entry.into()),
        (None, false) => {}
    }
}
