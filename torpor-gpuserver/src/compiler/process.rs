//! The compiler's process and its first child, which makes the original of all jobs.

use crate::compiler::original::{Original, copy};
use crate::compiler::wire::Answer;
use crate::driver::{Device, Driver, DriverError, link};
use crate::replaced;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, getpid, getppid, set_parent_process_death_signal, wait};
use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};
use torpor_proto::error::CudaError;
use torpor_proto::image::bundle::{Bundle, Input, InputKind};

/// What has the driver load its compiler: for any GPU that is served.
pub(super) const KERNEL: &[u8] =
    b".version 6.0\n.target sm_70\n.address_size 64\n.visible .entry nothing() { ret; }\n\0";

/// The driver's files, by their names' beginning.
const DRIVER: &str = "/dev/nvidia";

/// How long a process serves without its driver, before another one tries to have it.
const AGAIN: Duration = Duration::from_secs(10);

/// What a driver says that has no compiler: `CUDA_ERROR_JIT_COMPILER_NOT_FOUND`, `CUDA_ERROR_JIT_COMPILATION_DISABLED`. Source: `cuda.h`.
const NO_COMPILER: [CudaError; 2] = [CudaError(221), CudaError(223)];

/// Why there is no compiler.
#[derive(Debug, thiserror::Error)]
pub enum CompilerError {
    /// The driver or the GPU cannot be used.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The driver has no compiler.
    #[error("the driver does not compile PTX: {0}; is libnvidia-ptxjitcompiler.so.1 beside it?")]
    Compile(CudaError),
    /// A job does not do what the process did of which it is a copy.
    #[error("the first job gives no code: {0}")]
    Trial(io::Error),
    /// A child ended, which told why.
    #[error("{0}; its message is above")]
    Ended(ExitStatus),
    /// The kernel refuses something.
    #[error("jobs cannot be kept apart: {0}")]
    System(#[from] io::Error),
}

impl CompilerError {
    /// What those are told whose text is not compiled.
    pub(super) fn answer(&self) -> Answer {
        match self {
            // That does not change by itself.
            Self::Compile(error) if NO_COMPILER.contains(error) => Answer::Refused((*error).into()),
            Self::Driver(DriverError::Cuda { error, .. }) | Self::Compile(error) => Answer::Unready(*error),
            _ => Answer::Unready(CudaError::SYSTEM_NOT_READY),
        }
    }
}

/// Runs a compiler as this process and its children until it is killed; connections come by the listening socket. This process has no
/// other thread.
///
/// # Errors
/// [`CompilerError`]. If the driver or the GPU cannot be used, it returns some seconds later, and until then there are jobs that need neither.
pub fn run(driver: &Path, device: u32, listener: &OwnedFd) -> Result<(), CompilerError> {
    let parent = getpid();
    // SAFETY: the process has one thread, which goes on in both.
    match unsafe { libc::fork() } {
        0 => end_with(prepare(driver, device, listener, parent).err()),
        ..0 => return Err(io::Error::last_os_error().into()),
        _ => {}
    }
    loop {
        match wait(WaitOptions::empty()) {
            // The original is a child as well, by then.
            Ok(Some((_, status))) if status.exit_status() == Some(0) => {}
            Ok(Some((_, status))) => return Err(CompilerError::Ended(ExitStatus::from_raw(status.as_raw()))),
            Ok(None) | Err(Errno::INTR) => {}
            Err(Errno::CHILD) => return Ok(()),
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
}

/// Loads the driver, and makes of this process, which then ends, the original of all jobs: it has none of the driver's threads, of which
/// each might hold or change something at any time, and the GPU is let go of as this one ends.
fn prepare(driver: &Path, device: u32, listener: &OwnedFd, parent: Pid) -> Result<Infallible, CompilerError> {
    die_with(parent)?;
    // What is compiled is kept by workers, in files that no job can reach.
    // SAFETY: no thread has been started yet.
    unsafe { std::env::set_var("CUDA_CACHE_DISABLE", "1") };
    let device = open_device(driver, device);
    // What is only to be unpacked needs no driver; and memory of the GPU may be free later.
    let until = device.is_err().then(|| Instant::now() + AGAIN);
    if let Err(error) = &device {
        eprintln!("torpor-gpuserver: PTX is not compiled: {error}");
    }
    // The driver may have said that they are not to be inherited.
    let mappings = replaced::shared_mappings(DRIVER)?;
    match copy(libc::CLONE_PARENT) {
        0 => {
            let serve = || {
                die_with(parent)?;
                Original::new(device, listener, &mappings)?.serve(until)
            };
            end_with(serve().err())
        }
        ..0 => Err(io::Error::last_os_error().into()),
        // The driver is not asked to end what ends with the process.
        _ => end_with(None),
    }
}

/// Ends this process, which is a copy, and tells why if that is an error.
fn end_with(error: Option<CompilerError>) -> ! {
    if let Some(error) = &error {
        eprintln!("torpor-gpuserver: {error}");
    }
    // SAFETY: ends the process; nothing of it is used afterwards.
    unsafe { libc::_exit(error.is_some().into()) }
}

/// Has this process killed when its parent ends, which may be already.
fn die_with(parent: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// A device whose driver has its compiler loaded.
fn open_device(driver: &Path, device: u32) -> Result<Arc<Device>, CompilerError> {
    let device = Device::open(Driver::load(driver)?, device)?;
    let inputs = vec![Input { kind: InputKind::Ptx, bytes: KERNEL }];
    let linked = link(&device, &Bundle { choices: Vec::new(), inputs });
    linked.map_err(|refusal| CompilerError::Compile(refusal.error))?;
    Ok(device)
}
