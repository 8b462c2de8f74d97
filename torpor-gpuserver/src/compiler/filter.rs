//! What a job may ask of the kernel: memory of its own, time, its connection, and to end.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;
use std::io;

/// Calls that are allowed with whatever they are given.
const ALLOWED: [libc::c_long; 22] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrandom,
    libc::SYS_sysinfo,
];

/// Calls that are allowed for memory that cannot be executed; the third argument says what it is for.
const FOR_DATA: [libc::c_long; 2] = [libc::SYS_mmap, libc::SYS_mprotect];

/// A filter that refuses all other calls with EPERM.
///
/// # Errors
/// This kind of machine is not known.
pub(super) fn program() -> io::Result<BpfProgram> {
    let is_data = || {
        let executable = libc::PROT_EXEC as u64;
        SeccompRule::new(vec![SeccompCondition::new(
            2,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::MaskedEq(executable),
            0,
        )?])
    };
    let make = || {
        let mut rules: BTreeMap<_, _> = ALLOWED.into_iter().map(|call| (call, Vec::new())).collect();
        for call in FOR_DATA {
            rules.insert(call, vec![is_data()?]);
        }
        let refused = SeccompAction::Errno(libc::EPERM as u32);
        let filter =
            SeccompFilter::new(rules, refused, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?;
        BpfProgram::try_from(filter)
    };
    make().map_err(io::Error::other)
}

/// Puts the calling thread, and so a process that has no other, behind a filter for good.
///
/// # Errors
/// The kernel's.
pub(super) fn apply(program: &BpfProgram) -> io::Result<()> {
    seccompiler::apply_filter(program).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Whether the kernel refuses a call, which the filter does before it looks at what the call is given.
    fn is_refused(call: libc::c_long, arguments: [libc::c_long; 3]) -> bool {
        let [first, second, third] = arguments;
        // SAFETY: the kernel checks what it is given; nothing here is a valid address that it could write to.
        let done = unsafe { libc::syscall(call, first, second, third, 0, -1, 0) };
        done == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
    }

    #[test]
    fn a_job_computes_and_reaches_nothing() {
        let ended = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "compiler::filter::tests::the_one_behind_it", "--nocapture"])
            .env("TORPOR_FILTERED", "1")
            .output()
            .unwrap();
        assert_eq!(ended.status.code(), Some(42), "{}", String::from_utf8_lossy(&ended.stderr));
    }

    /// The process of the test above.
    #[test]
    fn the_one_behind_it() {
        if std::env::var_os("TORPOR_FILTERED").is_none() {
            return;
        }
        apply(&program().unwrap()).unwrap();
        let page = libc::PROT_READ.into();
        let refused = [
            ("open", libc::SYS_openat, [libc::AT_FDCWD.into(), 0, 0]),
            ("socket", libc::SYS_socket, [1, 1, 0]),
            ("connect", libc::SYS_connect, [0, 0, 0]),
            ("recvmsg", libc::SYS_recvmsg, [0, 0, 0]),
            ("ioctl", libc::SYS_ioctl, [0, 0, 0]),
            ("clone", libc::SYS_clone, [0, 0, 0]),
            ("execve", libc::SYS_execve, [0, 0, 0]),
            ("kill", libc::SYS_kill, [1, 0, 0]),
            ("ptrace", libc::SYS_ptrace, [0, 0, 0]),
            ("process_vm_readv", libc::SYS_process_vm_readv, [1, 0, 0]),
            ("memory that runs", libc::SYS_mmap, [0, 4096, libc::PROT_EXEC.into()]),
            ("code that is made", libc::SYS_mprotect, [0, 4096, (libc::PROT_READ | libc::PROT_EXEC).into()]),
        ];
        for (what, call, arguments) in refused {
            assert!(is_refused(call, arguments), "{what}");
        }
        assert!(!is_refused(libc::SYS_mmap, [0, 0, page]), "memory is what it needs");
        let large = vec![7_u8; 64 << 20];
        assert_eq!(large.iter().map(|&byte| u64::from(byte)).sum::<u64>(), 7 * (64 << 20));
        // SAFETY: ends the process.
        unsafe { libc::_exit(42) }
    }
}
