//! From a plan to a process: the clone, and the parent's part of the conversation with the child.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    ptr,
};

use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    process::{Signal, WaitId, WaitIdOptions, WaitIdStatus},
};

use crate::{
    child::{self, Child, What, wire},
    error::{Error, Result},
    idmap,
    plan::Plan,
    sys::{self, Clone},
};

/// A process that waits for the word to run its program.
pub(crate) struct Launched {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) socket: OwnedFd,
    pub(crate) console: Option<OwnedFd>,
    /// Which step is for which field, for failures to come.
    pub(crate) fields: Vec<(String, &'static str)>,
}

const PROC_MAGIC: u64 = 0x9fa0;

/// Starts the process, up to where it waits. `hooks` runs the runtime's hooks when it is their turn.
pub(crate) fn launch(
    plan: &Plan,
    cgroup: Option<BorrowedFd<'_>>,
    hooks: &mut dyn FnMut(i32) -> Result<()>,
) -> Result<Launched> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|err| Error::system("make a socket pair", err))?;
    let proc = open_proc()?;
    let (pid, pidfd) = in_pid_namespace(plan, || born(plan, cgroup, &theirs, &proc))?;
    drop(theirs);
    let fields = plan.program.steps.iter().map(|step| (step.field.clone(), step.op.doing())).collect();
    let mut launched = Launched { pid, pidfd, socket: ours, console: None, fields };
    let ready = converse(&mut launched, plan, hooks).and_then(|()| adjust(&launched, plan));
    if let Err(err) = ready {
        launched.kill();
        return Err(err);
    }
    Ok(launched)
}

/// The host's `/proc`, whatever is mounted over it by whom.
fn open_proc() -> Result<OwnedFd> {
    let failed = |err: Errno| Error::system("open /proc", err);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::openat(CWD, c"/proc", flags, Mode::empty()).map_err(failed)?;
    if rustix::fs::fstatfs(&proc).map_err(failed)?.f_type as u64 != PROC_MAGIC {
        return Err(Error::system("open /proc", io::Error::other("it is not procfs")));
    }
    Ok(proc)
}

/// A pid namespace is joined by the parent, for its next child; then the parent is as it was.
fn in_pid_namespace<T>(plan: &Plan, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(namespace) = &plan.pid_namespace else { return act() };
    let failed = |err: Errno| Error::failed("linux.namespaces", "join the pid namespace", err);
    let own = fs::File::open("/proc/self/ns/pid").map_err(|err| Error::system("open the own pid namespace", err))?;
    sys::setns(namespace.as_raw_fd(), libc::CLONE_NEWPID as u64).map_err(failed)?;
    let outcome = act();
    sys::setns(own.as_raw_fd(), libc::CLONE_NEWPID as u64).map_err(failed)?;
    outcome
}

fn born(plan: &Plan, cgroup: Option<BorrowedFd<'_>>, socket: &OwnedFd, proc: &OwnedFd) -> Result<(i32, OwnedFd)> {
    // Room for what the child finds out, made while memory can be had.
    let mut home = vec![0_u8; 2048];
    let mut env = vec![ptr::null(); plan.home_slots];
    // Nobody in the container may look into the copy of this process.
    let dumpable =
        rustix::process::dumpable_behavior().map_err(|err| Error::system("ask whether to be dumpable", err))?;
    let hide = |behavior| {
        rustix::process::set_dumpable_behavior(behavior).map_err(|err| Error::system("set whether to be dumpable", err))
    };
    hide(rustix::process::DumpableBehavior::NotDumpable)?;
    let cloned = sys::clone(plan.clone_flags, cgroup);
    match cloned {
        Ok(Clone::Child) => {
            let child = Child {
                socket: socket.as_fd(),
                proc: proc.as_fd(),
                root: plan.root.as_ref().map(|root| root.as_fd()),
                pid: 0,
                home: &mut home,
                env: &mut env,
                moved: false,
                chosen: 0,
                candidates: &[],
            };
            child::run(child, &plan.program)
        }
        Ok(Clone::Parent { pid, pidfd }) => {
            hide(dumpable)?;
            Ok((pid, pidfd))
        }
        Err(err) => {
            hide(dumpable)?;
            Err(Error::failed("linux.namespaces", "clone into the namespaces", err))
        }
    }
}

fn converse(launched: &mut Launched, plan: &Plan, hooks: &mut dyn FnMut(i32) -> Result<()>) -> Result<()> {
    let failed = |err: Errno| Error::system("talk to the container's process", err);
    loop {
        let Some(message) = wire::receive(launched.socket.as_fd()).map_err(failed)? else {
            return Err(launched.died());
        };
        match message.kind {
            wire::MAP => {
                let write = idmap::write_maps(launched.pid, &plan.uid_map, &plan.gid_map);
                write.map_err(|err| Error::failed("linux.uidMappings", "write the maps", err))?;
                wire::answer(launched.socket.as_fd(), launched.pid).map_err(failed)?;
            }
            wire::FORKED => launched.replace(message.fd)?,
            wire::HOOKS => {
                hooks(launched.pid)?;
                wire::answer(launched.socket.as_fd(), launched.pid).map_err(failed)?;
            }
            wire::CONSOLE => launched.console = message.fd,
            wire::READY => return Ok(()),
            wire::FAILED => return Err(failure(&launched.fields, &message)),
            _ => return Err(failed(Errno::PROTO)),
        }
    }
}

/// What is done to the process from outside, with rights that it may not have in its user namespace.
fn adjust(launched: &Launched, plan: &Plan) -> Result<()> {
    for (resource, soft, hard, field) in &plan.limits {
        sys::prlimit(launched.pid, *resource, *soft, *hard)
            .map_err(|err| Error::failed(&**field, format!("set the limit to {soft} and {hard}"), err))?;
    }
    let Some(score) = plan.oom_score_adj else { return Ok(()) };
    let path = format!("/proc/{}/oom_score_adj", launched.pid);
    match fs::write(&path, score.to_string()) {
        Err(err) if plan.oom_clamp && matches!(err.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => Ok(()),
        answer => answer.map_err(|err| Error::failed("process.oomScoreAdj", format!("write {score}"), err)),
    }
}

/// The error for a failed step.
fn failure(fields: &[(String, &'static str)], message: &wire::Message) -> Error {
    let (field, doing) = fields.get(message.step as usize).cloned().unwrap_or_default();
    let fail = message.fail;
    match fail.what {
        What::Errno => Error::failed(field, doing, Errno::from_raw_os_error(fail.number)),
        What::HookCode => {
            Error::Hook { field, path: String::new(), outcome: format!("failed with code {}", fail.number) }
        }
        What::HookSignal => {
            Error::Hook { field, path: String::new(), outcome: format!("was killed by signal {}", fail.number) }
        }
        What::HookTimeout => Error::Hook { field, path: String::new(), outcome: "took too long".into() },
        What::NoProgram => Error::failed(field, doing, io::Error::new(io::ErrorKind::NotFound, What::NoProgram.text())),
        what => Error::failed(field, doing, io::Error::other(what.text())),
    }
}

impl Launched {
    /// The process that goes on in place of the first one.
    fn replace(&mut self, pidfd: Option<OwnedFd>) -> Result<()> {
        let failed = |err: io::Error| Error::system("find the container's process", err);
        let pidfd = pidfd.ok_or_else(|| failed(Errno::PROTO.into()))?;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).map_err(failed)?;
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
        let first = std::mem::replace(&mut self.pidfd, pidfd);
        self.pid = pid.ok_or_else(|| failed(Errno::SRCH.into()))?;
        reap(&first);
        Ok(())
    }

    /// Says the word, and waits until the program runs.
    pub(crate) fn start(self) -> Result<(i32, OwnedFd)> {
        match begin(self.socket.as_fd(), self.pid, &self.fields) {
            Ok(()) => Ok((self.pid, self.pidfd)),
            Err(err) => {
                self.kill();
                Err(err)
            }
        }
    }

    pub(crate) fn kill(&self) {
        let _already_gone = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        reap(&self.pidfd);
    }

    fn died(&self) -> Error {
        let status = reap(&self.pidfd).map_or("somebody else has its status".to_owned(), |status| describe(&status));
        Error::Died { status }
    }
}

/// Says the word, and waits until the program runs; that closes the child's end of the socket.
pub(crate) fn begin(socket: BorrowedFd<'_>, pid: i32, fields: &[(String, &'static str)]) -> Result<()> {
    let failed = |err: Errno| Error::system("start the container's process", err);
    wire::answer(socket, pid).map_err(failed)?;
    match wire::receive(socket).map_err(failed)? {
        None => Ok(()),
        Some(message) if message.kind == wire::FAILED => Err(failure(fields, &message)),
        Some(_) => Err(failed(Errno::PROTO)),
    }
}

/// Waits for a child's end; `None` if it is not a child any more.
pub(crate) fn reap(pidfd: &OwnedFd) -> Option<WaitIdStatus> {
    rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED))
        .ok()
        .flatten()
}

fn describe(status: &WaitIdStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::{Fail, Op, Program};

    #[test]
    fn failures_name_their_field() {
        let mut program = Program::default();
        program.push("mounts[3]", Op::Session);
        let fields: Vec<_> = program.steps.iter().map(|step| (step.field.clone(), step.op.doing())).collect();
        let message = wire::Message { kind: wire::FAILED, step: 0, fail: Errno::PERM.into(), fd: None };
        let err = failure(&fields, &message);
        assert_eq!(err.field(), Some("mounts[3]"));
        let message = wire::Message { kind: wire::FAILED, step: 9, fail: Fail::from(What::Outside), fd: None };
        assert_eq!(failure(&fields, &message).field(), Some(""), "of no step that there is");
    }
}
