//! Numbers of system calls by name, for each architecture that a process on this machine may use.

use oci_spec::runtime::Arch;

/// A table of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    X86_64,
    X32,
    X86,
    Aarch64,
    Arm,
}

#[cfg(target_arch = "x86_64")]
pub(super) const NATIVE: Table = Table::X86_64;
#[cfg(target_arch = "aarch64")]
pub(super) const NATIVE: Table = Table::Aarch64;

/// The table of an architecture of the spec, if this machine can run its programs.
pub(super) fn of(arch: Arch) -> Option<Table> {
    let table = match arch {
        Arch::ScmpArchNative => NATIVE,
        Arch::ScmpArchX86_64 => Table::X86_64,
        Arch::ScmpArchX32 => Table::X32,
        Arch::ScmpArchX86 => Table::X86,
        Arch::ScmpArchAarch64 => Table::Aarch64,
        Arch::ScmpArchArm => Table::Arm,
        _ => return None,
    };
    let intel = matches!(table, Table::X86_64 | Table::X32 | Table::X86);
    (intel == cfg!(target_arch = "x86_64")).then_some(table)
}

/// Calls that x32 has under numbers of its own.
const X32_OWN: &[(&str, u32)] = &[
    ("rt_sigaction", 512),
    ("rt_sigreturn", 513),
    ("ioctl", 514),
    ("readv", 515),
    ("writev", 516),
    ("recvfrom", 517),
    ("sendmsg", 518),
    ("recvmsg", 519),
    ("execve", 520),
    ("ptrace", 521),
    ("rt_sigpending", 522),
    ("rt_sigtimedwait", 523),
    ("rt_sigqueueinfo", 524),
    ("sigaltstack", 525),
    ("timer_create", 526),
    ("mq_notify", 527),
    ("kexec_load", 528),
    ("waitid", 529),
    ("set_robust_list", 530),
    ("get_robust_list", 531),
    ("vmsplice", 532),
    ("move_pages", 533),
    ("preadv", 534),
    ("pwritev", 535),
    ("rt_tgsigqueueinfo", 536),
    ("recvmmsg", 537),
    ("sendmmsg", 538),
    ("process_vm_readv", 539),
    ("process_vm_writev", 540),
    ("setsockopt", 541),
    ("getsockopt", 542),
    ("io_setup", 543),
    ("io_submit", 544),
    ("execveat", 545),
    ("preadv2", 546),
    ("pwritev2", 547),
];

impl Table {
    /// What the kernel calls it, in `seccomp_data`.
    pub(super) fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// The number of a call.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        let number = match self {
            Self::X86_64 => name.parse::<syscalls::x86_64::Sysno>().ok()?.id(),
            Self::X86 => name.parse::<syscalls::x86::Sysno>().ok()?.id(),
            Self::Aarch64 => name.parse::<syscalls::aarch64::Sysno>().ok()?.id(),
            Self::Arm => name.parse::<syscalls::arm::Sysno>().ok()?.id(),
            Self::X32 => {
                let own = X32_OWN.iter().find(|(own, _)| *own == name).map(|(_, number)| *number);
                let number = own.or_else(|| Self::X86_64.number(name))?;
                return Some(super::X32 | number);
            }
        };
        u32::try_from(number).ok()
    }
}
