//! The process of which each job is a copy, and these copies.

use crate::compiler::process::{CompilerError, KERNEL};
use crate::compiler::wire::{self, Answer, Job, Life};
use crate::compiler::{filter, job};
use crate::driver::Device;
use crate::open_files::open_files;
use crate::replaced;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use seccompiler::BpfProgram;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// CPU time of a job, in seconds: natively the largest kernels take minutes.
const JOB_CPU_SECONDS: u64 = 600;

/// Memory of a job, in bytes.
const JOB_BYTES: u64 = 16 << 30;

/// How long the first job may take, on a busy node too.
const TRIAL: Duration = Duration::from_secs(20);

/// Where a job has its connection; the other two of the standard descriptors lead nowhere, and there are no more.
const CONNECTION: RawFd = 0;

/// The last of the standard descriptors.
const STANDARD: RawFd = 2;

/// The process of which each job is a copy. It has one thread, nothing of the GPU, the standard descriptors and the socket, and does nothing
/// with the driver itself: what one job finds in it all of them do.
pub(super) struct Original<'a> {
    device: Result<Arc<Device>, CompilerError>,
    life: Life,
    filter: BpfProgram,
    listener: &'a OwnedFd,
    nothing: OwnedFd,
    room: Room,
}

impl<'a> Original<'a> {
    /// Makes this process that: closes the driver's files, and puts memory in the place of these mappings.
    pub(super) fn new(
        device: Result<Arc<Device>, CompilerError>,
        listener: &'a OwnedFd,
        mappings: &[Range<usize>],
    ) -> Result<Self, CompilerError> {
        for number in open_files("self", "")? {
            if number > STANDARD && number != listener.as_raw_fd() {
                // SAFETY: the driver's, which only jobs call from here on; none of them can use a file by its number.
                let _ = unsafe { libc::close(number) };
            }
        }
        replaced::mappings(mappings)?;
        let nothing =
            open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(io::Error::from)?;
        // Nobody waits for jobs: the kernel forgets those that have ended.
        // SAFETY: sets no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        let (life, filter, room) = (Life::of_this_process(), filter::program()?, Room::of_jobs()?);
        Ok(Self { device, life, filter, listener, nothing, room })
    }

    /// Has a copy do the job of each connection that comes until then, or until this process is killed.
    pub(super) fn serve(&self, until: Option<Instant>) -> Result<(), CompilerError> {
        if self.device.is_ok() {
            self.try_out()?;
        }
        while is_there_another(self.listener, until)? {
            match accept_with(self.listener, SocketFlags::CLOEXEC) {
                // Whoever asks sees the connection end.
                Ok(connection) => self.begin(connection).unwrap_or_else(|error| {
                    eprintln!("torpor-gpuserver: no process for a job: {error}");
                }),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(())
    }

    /// Has a job compile what has been compiled before there were jobs.
    fn try_out(&self) -> Result<(), CompilerError> {
        let (mut connection, theirs) = UnixStream::pair()?;
        self.begin(theirs.into())?;
        connection.set_read_timeout(Some(TRIAL))?;
        wire::ask(&mut connection, Job::Compile, 0, KERNEL)?;
        Life::receive(&mut connection).map_err(CompilerError::Trial)?;
        match Answer::receive(&mut connection).map_err(CompilerError::Trial)? {
            Answer::Cubin(_) => Ok(()),
            Answer::Refused(refusal) => Err(CompilerError::Compile(refusal.error)),
            _ => Err(CompilerError::Trial(io::ErrorKind::InvalidData.into())),
        }
    }

    /// Begins the job of a connection.
    fn begin(&self, connection: OwnedFd) -> io::Result<()> {
        match copy(0) {
            0 => self.do_job(connection),
            ..0 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Does a job, as a process of its own.
    fn do_job(&self, connection: OwnedFd) -> ! {
        let work = || -> io::Result<()> {
            dup2_stdin(&connection)?;
            dup2_stdout(&self.nothing)?;
            dup2_stderr(&self.nothing)?;
            for number in [connection.into_raw_fd(), self.listener.as_raw_fd(), self.nothing.as_raw_fd()] {
                // SAFETY: nobody uses them in this process any more, and what owns them is never dropped here.
                let _ = unsafe { libc::close(number) };
            }
            // SAFETY: the descriptor is open, and this is its only owner.
            let mut connection = unsafe { File::from_raw_fd(CONNECTION) };
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // Rust's handlers cannot end the process behind the filter, and would try again for ever.
            for signal in [libc::SIGSEGV, libc::SIGBUS] {
                // SAFETY: sets no handler.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
            for (resource, most) in
                [(Resource::Cpu, JOB_CPU_SECONDS), (Resource::As, self.room.0), (Resource::Core, 0)]
            {
                setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
            }
            filter::apply(&self.filter)?;
            let device = self.device.as_ref().map(Arc::as_ref).map_err(CompilerError::answer);
            job::answer(&mut connection, self.life, device)
        };
        let done = catch_unwind(AssertUnwindSafe(work));
        let status = i32::from(!matches!(done, Ok(Ok(()))));
        // SAFETY: ends the process; nothing of it is used afterwards.
        unsafe { libc::_exit(status) }
    }
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

/// Address space of a job, in bytes.
struct Room(u64);

impl Room {
    /// What this process has, and what a job may take.
    fn of_jobs() -> io::Result<Self> {
        let said = fs::read_to_string("/proc/self/statm")?;
        let pages: u64 = said.split_whitespace().next().and_then(|pages| pages.parse().ok()).unwrap_or(0);
        Ok(Self((pages * rustix::param::page_size() as u64).saturating_add(JOB_BYTES)))
    }
}

/// A copy of this process, with these flags of clone(2): 0 there, its number here, or less.
///
/// By the system call, not by fork(3): that calls what the driver has registered (pthread_atfork(3)), after which it refuses everything in
/// the copy (`CUDA_ERROR_NOT_INITIALIZED`). It need not know, since the copy has nothing of the GPU.
pub(super) fn copy(flags: libc::c_int) -> libc::c_long {
    // SAFETY: the copy has this thread alone, with its stack. What the driver's threads hold in the copied process stays held there for
    // ever, which the trial would find.
    unsafe { libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0) }
}
