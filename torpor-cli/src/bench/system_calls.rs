//! Counting the system calls of a burst of launches: a process of its own launches between marks, and is traced.
//!
//! A mark is getppid(2), which no driver calls while it launches. Only the thread that launches is traced. Source of the
//! stops and their order: ptrace(2).

use super::BenchError;
use super::posted::BURST;
use super::workbench::Workbench;
use crate::driver_api::Driver;
use rustix::process::{Pid, WaitOptions, WaitStatus, getppid, waitpid};
use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::ptr;

/// A stop for a system call, once PTRACE_O_TRACESYSGOOD is set.
const SYSTEM_CALL_STOP: i32 = libc::SIGTRAP | 0x80;

/// What was counted.
#[derive(Debug, Default)]
pub struct SystemCalls {
    /// How many in each burst.
    pub bursts: Vec<u64>,
    /// How many of each number.
    pub numbers: BTreeMap<u64, u64>,
}

/// Launches in bursts, for whoever traces this process.
///
/// # Errors
/// [`BenchError`].
pub fn serve(library: &OsStr, rounds: u32) -> Result<(), BenchError> {
    let driver = Driver::open(library)?;
    let mut bench = Workbench::new(&driver)?;
    let launch = |bench: &mut Workbench| (0..BURST).try_for_each(|_| bench.launch());
    launch(&mut bench)?;
    bench.synchronize()?;
    // Not kill(2), which another thread might take: the whole process would stop, and this thread alone go on.
    // SAFETY: no handler is installed for it, and none can be.
    if unsafe { libc::raise(libc::SIGSTOP) } != 0 {
        return Err(BenchError::Trace(io::Error::last_os_error()));
    }
    for _ in 0..rounds {
        mark();
        launch(&mut bench)?;
        mark();
        bench.synchronize()?;
    }
    Ok(())
}

fn mark() {
    // Who the parent is does not matter.
    let _ = getppid();
}

/// Counts in a process that is started for it.
///
/// # Errors
/// [`BenchError::Trace`], [`BenchError::TracedProcess`].
pub fn count(library: &OsStr, rounds: u32) -> Result<SystemCalls, BenchError> {
    let traced = start(library, rounds).map_err(BenchError::Trace)?;
    let (status, counted) = trace(traced).map_err(BenchError::Trace)?;
    let complete = status.success() && counted.bursts.len() == rounds as usize;
    if complete { Ok(counted) } else { Err(BenchError::TracedProcess(status)) }
}

fn start(library: &OsStr, rounds: u32) -> io::Result<Pid> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("bench-burst").arg("--libcuda").arg(library).arg("--rounds").arg(rounds.to_string());
    // SAFETY: the system call is all that happens between fork and exec.
    unsafe { command.pre_exec(|| ptrace(libc::PTRACE_TRACEME, None, 0, ptr::null_mut()).map(drop)) };
    Ok(Pid::from_child(&command.spawn()?))
}

/// Follows the process to its end.
fn trace(process: Pid) -> io::Result<(ExitStatus, SystemCalls)> {
    let mut counted = SystemCalls::default();
    let mut in_burst = None;
    let mut resume = libc::PTRACE_CONT;
    let mut started = false;
    loop {
        let status = wait(process)?;
        let Some(stop) = status.stopping_signal() else {
            return Ok((ExitStatus::from_raw(status.as_raw()), counted));
        };
        // What the process is to get of a signal that it stopped for.
        let mut signal = 0;
        match stop {
            libc::SIGTRAP if !started => {
                started = true;
                let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
                ptrace(libc::PTRACE_SETOPTIONS, Some(process), 0, word(options as usize))?;
            }
            libc::SIGSTOP => resume = libc::PTRACE_SYSCALL,
            SYSTEM_CALL_STOP => match (entered(process)?, &mut in_burst) {
                (Some(number), count) if number == libc::SYS_getppid.cast_unsigned() => match count.take() {
                    Some(calls) => counted.bursts.push(calls),
                    None => in_burst = Some(0),
                },
                (Some(number), Some(calls)) => {
                    *calls += 1;
                    *counted.numbers.entry(number).or_default() += 1;
                }
                _ => {}
            },
            other => signal = other,
        }
        ptrace(resume, Some(process), 0, word(signal.cast_unsigned() as usize))?;
    }
}

fn wait(process: Pid) -> io::Result<WaitStatus> {
    loop {
        match waitpid(Some(process), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(status),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The number of the system call that the process stopped at, if it has not made it yet.
fn entered(process: Pid) -> io::Result<Option<u64>> {
    let mut info = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    ptrace(libc::PTRACE_GET_SYSCALL_INFO, Some(process), size_of_val(&info), info.as_mut_ptr().cast())?;
    // SAFETY: zeroes and whatever the kernel wrote over them are valid in each of its fields.
    let info = unsafe { info.assume_init() };
    // SAFETY: on entry the kernel writes this one of the union's fields.
    let number = || unsafe { info.u.entry.nr };
    Ok((info.op == libc::PTRACE_SYSCALL_INFO_ENTRY).then(number))
}

fn word(value: usize) -> *mut libc::c_void {
    ptr::without_provenance_mut(value)
}

/// `data` is a number, or points to as much memory as the request and `address` say.
fn ptrace(
    request: libc::c_uint,
    process: Option<Pid>,
    address: usize,
    data: *mut libc::c_void,
) -> io::Result<libc::c_long> {
    let process = process.map_or(0, |process| process.as_raw_nonzero().get());
    // SAFETY: what the request writes has room, by the promise above.
    let result = unsafe { libc::ptrace(request, process, address, data) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
