//! The worker's standard output and standard error, where the driver writes what kernels say: their `printf` and their failed
//! assertions. Neither says whose kernel it was; `printing.rs` finds out.
//!
//! Standard output is memory of a fixed size: the driver writes into it while a session waits for the driver, so it must never
//! block, and a kernel that prints without end must not fill the node. What goes to standard error is passed on by a
//! thread; assertions are kept on the way.

use crate::worker::sync::lock;
use rustix::fs::{MemfdFlags, SealFlags, SeekFrom, fcntl_add_seals, ftruncate, memfd_create, seek};
use rustix::io::ioctl_fionread;
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Text between two readings; more is lost, as it is when CUDA's own buffer of 1 MiB runs over.
const OUTPUT_BYTES: u64 = 16 << 20;

/// Once so much was written, it is written from the beginning again.
const REWIND_BYTES: u64 = OUTPUT_BYTES / 2;

/// Assertions that are kept: a grid may have a million of them, all the same but for their coordinates.
const ASSERTION_BYTES: usize = 16 << 10;

/// What every message of a failed assertion has in it (CUDA C++ Programming Guide, "Assertion").
const ASSERTION: &[u8] = b"] Assertion `";

/// How long what was written to standard error may take through the pipe.
const PIPE_PATIENCE: Duration = Duration::from_millis(100);

/// Both streams of this process.
#[derive(Debug)]
pub struct Console {
    output: Mutex<Output>,
    errors: Arc<Mutex<Errors>>,
    log: Arc<File>,
}

/// What is written to standard output.
#[derive(Debug)]
struct Output {
    memory: File,
    read_bytes: u64,
}

/// What is written to standard error, and where it goes.
#[derive(Debug)]
struct Errors {
    pipe: File,
    line: Vec<u8>,
    assertions: Vec<u8>,
}

impl Console {
    /// Takes both streams of this process, before anything of the driver is loaded.
    ///
    /// # Errors
    /// The system's.
    pub fn capture() -> io::Result<Self> {
        let memory = memfd_create("torpor-output", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&memory, OUTPUT_BYTES)?;
        fcntl_add_seals(&memory, SealFlags::GROW | SealFlags::SHRINK)?;
        rustix::stdio::dup2_stdout(&memory)?;
        let log = Arc::new(File::from(io::stderr().as_fd().try_clone_to_owned()?));
        let (reading, writing) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::stdio::dup2_stderr(&writing)?;
        let pipe = File::from(reading);
        let errors = Arc::new(Mutex::new(Errors {
            pipe: pipe.try_clone()?,
            line: Vec::new(),
            assertions: Vec::new(),
        }));
        let (passed_on, there) = (errors.clone(), log.clone());
        let pass_on = move || {
            use rustix::event::{PollFd, PollFlags, poll};
            // The end of the pipe is that of the process, which holds the other end itself.
            while poll(&mut [PollFd::new(&pipe, PollFlags::IN)], None).is_ok_and(|ready| ready > 0) {
                if lock(&passed_on).pass_on(&there).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("errors".to_owned()).spawn(pass_on)?;
        let output = Mutex::new(Output { memory: memory.into(), read_bytes: 0 });
        Ok(Self { output, errors, log })
    }

    /// Where standard error goes in the end; what is written here does not pass through a thread.
    #[must_use]
    pub fn log(&self) -> Arc<File> {
        self.log.clone()
    }

    /// What the driver has written to standard output since the last time.
    pub(crate) fn take_text(&self) -> Vec<u8> {
        let mut output = lock(&self.output);
        // SAFETY: without a stream it writes what all of them hold.
        let _ = unsafe { libc::fflush(std::ptr::null_mut()) };
        output.take().unwrap_or_default()
    }

    /// Failed assertions that the driver has told of so far.
    pub(crate) fn assertions(&self) -> Vec<u8> {
        let since = Instant::now();
        loop {
            let errors = lock(&self.errors);
            if ioctl_fionread(&errors.pipe).is_ok_and(|bytes| bytes == 0) || since.elapsed() >= PIPE_PATIENCE
            {
                return errors.assertions.clone();
            }
            drop(errors);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Gives standard error back, once everything has arrived: the process is about to end.
    pub fn release(&self) {
        let _ = self.assertions();
        // Else the last words are lost, and nobody can be told.
        let _ = rustix::stdio::dup2_stderr(&*self.log);
    }
}

impl Output {
    fn take(&mut self) -> io::Result<Vec<u8>> {
        let end = seek(&self.memory, SeekFrom::Current(0))?;
        let mut text = vec![0; usize::try_from(end.saturating_sub(self.read_bytes)).unwrap_or(0)];
        self.memory.read_exact_at(&mut text, self.read_bytes)?;
        self.read_bytes = end;
        if end >= REWIND_BYTES {
            seek(&self.memory, SeekFrom::Start(0))?;
            self.read_bytes = 0;
        }
        Ok(text)
    }
}

impl Errors {
    /// Passes on what is in the pipe.
    fn pass_on(&mut self, log: &File) -> io::Result<()> {
        let mut bytes = [0; 4096];
        let read = self.pipe.read(&mut bytes)?;
        let mut log: &File = log;
        // A log that cannot be written must not end the worker.
        let _ = log.write_all(&bytes[..read]);
        for &byte in &bytes[..read] {
            self.line.push(byte);
            if byte == b'\n' {
                let is_assertion = self.line.windows(ASSERTION.len()).any(|part| part == ASSERTION);
                if is_assertion && self.assertions.len() + self.line.len() <= ASSERTION_BYTES {
                    self.assertions.extend_from_slice(&self.line);
                }
                self.line.clear();
            } else if self.line.len() > ASSERTION_BYTES {
                self.line.clear();
            }
        }
        Ok(())
    }
}
