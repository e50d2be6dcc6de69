//! The default system call filter: what is allowed always, what a capability or an architecture adds, and what only
//! certain arguments make harmless. Everything else fails with EPERM.
//!
//! The names are those that Docker's and containerd's default profiles allow; programs were built against that set.

use serde_json::{Value, json};

/// The filter for a process with these capabilities (with the `CAP_` prefix) on an architecture (by its Go name).
pub(crate) fn default_profile(bounding: &[String], architecture: &str) -> Value {
    let mut rules = vec![allow(ALWAYS)];
    rules.extend(sockets());
    rules.extend(PERSONALITIES.map(|value| allow_if("personality", 0, value, "SCMP_CMP_EQ")));
    // Safe since Linux 4.8, where the tracer's rights are checked after the filter ran; older kernels run no pods.
    rules.push(allow("process_vm_readv process_vm_writev ptrace"));
    let (architectures, extra) = architectures(architecture);
    if !extra.is_empty() {
        rules.push(allow(extra));
    }
    for (capability, names) in BY_CAPABILITY {
        if bounding.iter().any(|have| have == capability) {
            rules.push(allow(names));
        }
    }
    if !bounding.iter().any(|have| have == "CAP_SYS_ADMIN") {
        rules.extend(clone(architecture));
    }
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": architectures, "syscalls": rules })
}

fn allow(names: &str) -> Value {
    json!({ "names": names.split_whitespace().collect::<Vec<_>>(), "action": "SCMP_ACT_ALLOW" })
}

fn allow_if(name: &str, index: u32, value: u64, operator: &str) -> Value {
    json!({
        "names": [name], "action": "SCMP_ACT_ALLOW",
        "args": [{ "index": index, "value": value, "op": operator }],
    })
}

/// Every address family but AF_ALG (38) and AF_VSOCK (40): the one is a large surface in the kernel, the other talks
/// past the pod's network to the hypervisor. Three rules of one condition, because runtimes treat two conditions on
/// one argument as alternatives.
fn sockets() -> [Value; 3] {
    const ALG: u64 = 38;
    const VSOCK: u64 = 40;
    [("SCMP_CMP_LT", ALG), ("SCMP_CMP_EQ", ALG + 1), ("SCMP_CMP_GT", VSOCK)]
        .map(|(operator, value)| allow_if("socket", 0, value, operator))
}

/// Linux, 32 bit and BSD personalities without the flags that weaken address randomisation, and "only ask".
const PERSONALITIES: [u64; 5] = [0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Without CAP_SYS_ADMIN a process may clone but make no namespaces. The flags of clone3 are in memory, where a filter
/// cannot look, so it does not exist: C libraries fall back to clone on ENOSYS, not on EPERM.
fn clone(architecture: &str) -> [Value; 2] {
    const ENOSYS: u32 = 38;
    // NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
    const NAMESPACES: u64 = 0x7e02_0000;
    let flags = if architecture.starts_with("s390") { 1 } else { 0 };
    [
        json!({
            "names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": flags, "value": NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }],
        }),
        json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }),
    ]
}

/// The kernel's architectures that a process may make calls of, and calls that only exist there.
fn architectures(name: &str) -> (&'static [&'static str], &'static str) {
    match name {
        "amd64" => (&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], "arch_prctl modify_ldt"),
        "arm64" => (&["SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64"], ARM),
        "arm" => (&[], ARM),
        "386" => (&[], "modify_ldt"),
        "ppc64le" => (&[], "sync_file_range2 swapcontext"),
        "s390x" => {
            (&["SCMP_ARCH_S390", "SCMP_ARCH_S390X"], "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr")
        }
        "riscv64" => (&["SCMP_ARCH_RISCV64"], "riscv_flush_icache riscv_hwprobe"),
        "loong64" => (&["SCMP_ARCH_LOONGARCH64"], ""),
        // The runtime then filters calls of its own architecture.
        _ => (&[], ""),
    }
}

const ARM: &str = "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls";

const BY_CAPABILITY: [(&str, &str); 14] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

const ALWAYS: &str = "accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime \
    clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep \
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 \
    epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit \
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 \
    fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat \
    fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait \
    futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid \
    getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid \
    getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname \
    getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 \
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl \
    ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 \
    lgetxattr link linkat listen listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr \
    lsm_get_self_attr lsm_list_modules lsm_set_self_attr lstat lstat64 madvise map_shadow_stack membarrier \
    memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect \
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink \
    mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat \
    _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect \
    poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 \
    pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg \
    remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction \
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 \
    rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam \
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr \
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send \
    sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 \
    setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 \
    setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 \
    setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn \
    socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range \
    syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 \
    timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 \
    times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 \
    utimes vfork vmsplice wait4 waitid waitpid write writev";
