//! What the child and its parent tell each other, over a socket that keeps messages apart.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        recv, recvmsg, send as send_bytes, sendmsg,
    },
};

/// Asks for the id maps.
pub(crate) const MAP: u8 = 1;
/// Brings the pidfd of the process that goes on in this one's place.
pub(crate) const FORKED: u8 = 2;
/// Asks for the runtime's hooks, and for the pid.
pub(crate) const HOOKS: u8 = 3;
/// Brings the terminal.
pub(crate) const CONSOLE: u8 = 4;
/// Brings the listener of seccomp.
pub(crate) const LISTENER: u8 = 5;
/// All is prepared.
pub(crate) const READY: u8 = 6;
/// A step failed.
pub(crate) const FAILED: u8 = 7;

/// Why a step failed, where an error number does not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum What {
    Errno = 0,
    /// The parent has gone.
    ParentGone,
    /// The directory is outside the container.
    Outside,
    /// The target is in procfs.
    OnProc,
    /// The target is a link, or not a directory.
    NotPlain,
    /// Something else is where the device should be.
    Occupied,
    /// It is not the device that it should be.
    NotDevice,
    /// The hook returned a code.
    HookCode,
    /// The hook was ended by a signal.
    HookSignal,
    /// The hook took too long.
    HookTimeout,
    /// No such program.
    NoProgram,
}

impl What {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Errno => "",
            Self::ParentGone => "nobody is there to say the word",
            Self::Outside => "the directory is outside the container",
            Self::OnProc => "the target lies in procfs",
            Self::NotPlain => "the target must be a plain directory",
            Self::Occupied => "something else is there",
            Self::NotDevice => "it is not the device that it should be",
            Self::HookCode => "failed",
            Self::HookSignal => "was killed",
            Self::HookTimeout => "took too long",
            Self::NoProgram => "no such program",
        }
    }

    fn of(byte: u8) -> Self {
        const ALL: [What; 11] = [
            What::Errno,
            What::ParentGone,
            What::Outside,
            What::OnProc,
            What::NotPlain,
            What::Occupied,
            What::NotDevice,
            What::HookCode,
            What::HookSignal,
            What::HookTimeout,
            What::NoProgram,
        ];
        ALL.into_iter().find(|what| *what as u8 == byte).unwrap_or(What::Errno)
    }
}

/// A failed step: why, and an error number, exit code or signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fail {
    pub(crate) what: What,
    pub(crate) number: i32,
}

impl From<Errno> for Fail {
    fn from(errno: Errno) -> Self {
        Self { what: What::Errno, number: errno.raw_os_error() }
    }
}

impl From<What> for Fail {
    fn from(what: What) -> Self {
        Self { what, number: 0 }
    }
}

/// One message to the parent.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: u8,
    pub(crate) step: u32,
    pub(crate) fail: Fail,
    pub(crate) fd: Option<OwnedFd>,
}

const LENGTH: usize = 10;

fn encode(kind: u8, what: u8, step: u32, number: i32) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[0] = kind;
    bytes[1] = what;
    bytes[2..6].copy_from_slice(&step.to_le_bytes());
    bytes[6..].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// To the parent, without a descriptor.
pub(crate) fn send(socket: BorrowedFd<'_>, kind: u8, what: u8, number: i32) -> Result<(), Errno> {
    send_bytes(socket, &encode(kind, what, 0, number), SendFlags::NOSIGNAL).map(drop)
}

/// To the parent: a step failed. Nobody may be there to read it.
pub(crate) fn report(socket: BorrowedFd<'_>, step: u32, fail: Fail) {
    let _unheard = send_bytes(socket, &encode(FAILED, fail.what as u8, step, fail.number), SendFlags::NOSIGNAL);
}

/// To the parent, with a descriptor.
pub(crate) fn send_fd(socket: BorrowedFd<'_>, kind: u8, fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::NOBUFS);
    }
    sendmsg(socket, &[IoSlice::new(&encode(kind, 0, 0, 0))], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// Waits for the parent's word, which carries this process's pid.
pub(crate) fn wait(socket: BorrowedFd<'_>) -> Result<i32, Fail> {
    let mut bytes = [0_u8; 4];
    loop {
        match recv(socket, &mut bytes[..], RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            Ok((4, _)) => return Ok(i32::from_le_bytes(bytes)),
            Ok(_) => return Err(What::ParentGone.into()),
            Err(err) => return Err(err.into()),
        }
    }
}

/// The parent's word.
pub(crate) fn answer(socket: BorrowedFd<'_>, pid: i32) -> Result<(), Errno> {
    send_bytes(socket, &pid.to_le_bytes(), SendFlags::NOSIGNAL).map(drop)
}

/// The next message of the child; `None` when it has closed its end, by exec or by its death.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> Result<Option<Message>, Errno> {
    let mut bytes = [0_u8; LENGTH];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let read = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            // The child died with something of ours unread.
            Err(Errno::CONNRESET) => return Ok(None),
            answer => break answer?.bytes,
        }
    };
    if read != LENGTH {
        return if read == 0 { Ok(None) } else { Err(Errno::PROTO) };
    }
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let number = |at: usize| i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Ok(Some(Message {
        kind: bytes[0],
        step: number(2).cast_unsigned(),
        fail: Fail { what: What::of(bytes[1]), number: number(6) },
        fd,
    }))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn what_is_sent_arrives() {
        let (one, two) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        report(one.as_fd(), 70_000, Fail { what: What::HookCode, number: 3 });
        send_fd(one.as_fd(), CONSOLE, one.as_fd()).unwrap();
        let message = receive(two.as_fd()).unwrap().unwrap();
        assert_eq!(
            (message.kind, message.step, message.fail.what, message.fail.number),
            (FAILED, 70_000, What::HookCode, 3)
        );
        assert!(message.fd.is_none());
        let message = receive(two.as_fd()).unwrap().unwrap();
        assert_eq!(message.kind, CONSOLE);
        drop(message.fd.expect("a descriptor"));
        answer(two.as_fd(), 7).unwrap();
        assert_eq!(wait(one.as_fd()).unwrap(), 7);
        drop(two);
        assert_eq!(wait(one.as_fd()).unwrap_err().what, What::ParentGone);
    }
}
