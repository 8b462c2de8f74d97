//! The compiler's process: it is made ready once, and makes a child for each job.

use crate::compiler::{filter, job};
use crate::driver::{Device, Driver, DriverError, compile};
use crate::open_files::open_files;
use crate::replaced;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{Resource, Rlimit};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use seccompiler::BpfProgram;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use torpor_proto::error::CudaError;

/// What has the driver load its compiler: for any GPU that is served.
const KERNEL: &[u8] =
    b".version 6.0\n.target sm_70\n.address_size 64\n.visible .entry nothing() { ret; }\n\0";

/// The driver's files, by their names' beginning.
const DRIVER: &str = "/dev/nvidia";

/// CPU time of a job, in seconds: natively the largest kernels take minutes.
const JOB_CPU_SECONDS: u64 = 600;

/// Memory of a job, in bytes.
const JOB_BYTES: u64 = 16 << 30;

/// How long a process serves without its driver, before another one tries to have it.
const AGAIN: Duration = Duration::from_secs(10);

/// Where a job has its connection; the other two of the standard descriptors lead nowhere, and there are no more.
const CONNECTION: RawFd = 0;

/// The last of the standard descriptors.
const STANDARD: RawFd = 2;

/// Why there is no compiler.
#[derive(Debug, thiserror::Error)]
pub enum CompilerError {
    /// The driver or the GPU cannot be used.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The driver has no compiler.
    #[error("the driver does not compile PTX: {0}; is libnvidia-ptxjitcompiler.so.1 beside it?")]
    Compile(CudaError),
    /// The kernel refuses something.
    #[error("jobs cannot be kept apart: {0}")]
    System(#[from] io::Error),
}

impl CompilerError {
    /// What those are told whose code is not compiled.
    fn code(&self) -> CudaError {
        match self {
            Self::Driver(DriverError::Cuda { error, .. }) | Self::Compile(error) => *error,
            Self::Driver(_) | Self::System(_) => CudaError::SYSTEM_NOT_READY,
        }
    }
}

/// Runs a compiler as this process, which has no other thread of its own, until it is killed; connections come by the listening socket.
///
/// # Errors
/// [`CompilerError`]. If the driver or the GPU cannot be used, that is some seconds later, and until then there are jobs that need neither.
pub fn run(driver: &Path, device: u32, listener: &OwnedFd) -> Result<(), CompilerError> {
    // What is compiled is kept by workers, in files that no job can reach.
    // SAFETY: no thread has been started yet.
    unsafe { std::env::set_var("CUDA_CACHE_DISABLE", "1") };
    let device = open_device(driver, device);
    // What is only to be unpacked needs no driver; and memory of the GPU may be free later.
    let until = device.is_err().then(|| Instant::now() + AGAIN);
    if let Err(error) = &device {
        eprintln!("torpor-gpuserver: PTX is not compiled: {error}");
    }
    let filter = filter::program()?;
    let room = Room::of_jobs()?;
    let held = let_go(listener)?;
    // Nobody waits for jobs: the kernel forgets those that have ended.
    // SAFETY: sets no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    while is_there_another(listener, until)? {
        let connection = match accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(connection) => connection,
            Err(Errno::INTR | Errno::CONNABORTED) => continue,
            Err(error) => return Err(io::Error::from(error).into()),
        };
        match fork() {
            0 => do_job(connection, &held, device.as_ref(), &filter, room),
            // Whoever asks sees the connection end.
            ..0 => eprintln!("torpor-gpuserver: no process for a job: {}", io::Error::last_os_error()),
            _ => {}
        }
    }
    device.map(drop)
}

/// A device whose driver has its compiler loaded.
fn open_device(driver: &Path, device: u32) -> Result<Arc<Device>, CompilerError> {
    let device = Device::open(Driver::load(driver)?, device)?;
    compile(&device, KERNEL).map_err(CompilerError::Compile)?;
    Ok(device)
}

/// Waits for the next connection. False if there is none until then.
fn is_there_another(listener: &OwnedFd, until: Option<Instant>) -> io::Result<bool> {
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left =
            left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        match poll(&mut [PollFd::new(listener, PollFlags::IN)], left.as_ref()) {
            Err(Errno::INTR) => {}
            done => return Ok(done? > 0),
        }
    }
}

/// What the process has open beside the standard descriptors, and a job has not.
struct Held {
    numbers: Vec<RawFd>,
    /// One of them: `/dev/null`.
    nothing: OwnedFd,
}

/// Lets go of the GPU and of every descriptor but the standard ones and the socket. The driver's are replaced, not closed: it may use
/// their numbers.
fn let_go(listener: &OwnedFd) -> io::Result<Held> {
    let nothing = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let numbers = open_files("self", "")?.into_iter().filter(|&number| number > STANDARD);
    let held = Held { numbers: numbers.collect(), nothing };
    let is_spared = |number| number == listener.as_raw_fd() || number == held.nothing.as_raw_fd();
    for &number in held.numbers.iter().filter(|&&number| !is_spared(number)) {
        replaced::file(number, &held.nothing)?;
    }
    replaced::mappings(DRIVER)?;
    Ok(held)
}

/// Address space of a job, in bytes.
#[derive(Clone, Copy)]
struct Room(u64);

impl Room {
    /// What this process has, and what a job may take.
    fn of_jobs() -> io::Result<Self> {
        let said = fs::read_to_string("/proc/self/statm")?;
        let pages: u64 = said.split_whitespace().next().and_then(|pages| pages.parse().ok()).unwrap_or(0);
        Ok(Self((pages * rustix::param::page_size() as u64).saturating_add(JOB_BYTES)))
    }
}

/// A copy of this process: 0 there, its number here, or less.
///
/// By the system call, not by fork(3): that calls what the driver has registered (pthread_atfork(3)), after which it refuses everything in
/// the copy (`CUDA_ERROR_NOT_INITIALIZED`). It need not know, since the copy has nothing of the GPU.
fn fork() -> libc::c_long {
    // SAFETY: the copy has this thread alone, with its stack. What other threads, which are the driver's, may hold in it stays held: they
    // have slept since this process let go of what they wait for, and use arenas of the allocator of their own.
    unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) }
}

/// Does a job, as a process of its own.
fn do_job(
    connection: OwnedFd,
    held: &Held,
    device: Result<&Arc<Device>, &CompilerError>,
    filter: &BpfProgram,
    room: Room,
) -> ! {
    let work = || -> io::Result<()> {
        dup2_stdin(&connection)?;
        dup2_stdout(&held.nothing)?;
        dup2_stderr(&held.nothing)?;
        drop(connection);
        for &number in &held.numbers {
            // SAFETY: nobody uses them in this process any more, and what owns them is never dropped here.
            let _ = unsafe { libc::close(number) };
        }
        // SAFETY: the descriptor is open, and this is its only owner.
        let mut connection = unsafe { File::from_raw_fd(CONNECTION) };
        // Rust's handlers cannot end the process behind the filter, and would try again for ever.
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            // SAFETY: sets no handler.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        for (resource, most) in
            [(Resource::Cpu, JOB_CPU_SECONDS), (Resource::As, room.0), (Resource::Core, 0)]
        {
            rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
        }
        filter::apply(filter)?;
        job::answer(&mut connection, device.map(Arc::as_ref).map_err(CompilerError::code))
    };
    let done = catch_unwind(AssertUnwindSafe(work));
    let status = i32::from(!matches!(done, Ok(Ok(()))));
    // SAFETY: ends the process; nothing of it is used afterwards.
    unsafe { libc::_exit(status) }
}
