//! What a worker has open of the driver's, which the server holds, too.
//!
//! The driver takes back what a process had when nobody has its files open any more, and serves nobody else meanwhile: a context with
//! 2 GiB and 31 page-locked areas takes it 110 to 190 ms (H200, 2026-11-29). As long as the server holds them, a worker that is killed
//! ends within a millisecond, and the server chooses the moment for the rest. It makes no call by them.
//!
//! Limits: only what is open when the context has just been made, which is all that matters of it. Where the kernel does not let the
//! server have them (pidfd_getfd(2): Linux 5.6, and the right to trace the worker), the driver takes everything back at once.

use crate::open_files::open_files;
use rustix::io::Errno;
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};

/// What the names of the driver's files begin with.
const DRIVER: &str = "/dev/nvidia";

/// Open files of the driver's.
#[derive(Debug, Default)]
pub(super) struct DriverFiles(Vec<OwnedFd>);

impl DriverFiles {
    /// Those that a process has open now.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn of(process: impl AsFd, pid: u32) -> io::Result<Self> {
        Self::called(process, pid, DRIVER)
    }

    /// Those of a process whose names begin so.
    fn called(process: impl AsFd, pid: u32, beginning: &str) -> io::Result<Self> {
        let mut files = Vec::new();
        for number in open_files(pid, beginning)? {
            match pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) {
                Ok(file) => files.push(file),
                // The worker has closed it just now.
                Err(Errno::BADF) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self(files))
    }

    /// Whether there are any.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets go of them, after which the driver has taken back what an ended process had.
    pub(super) async fn close(&mut self) {
        let files = mem::take(&mut self.0);
        if !files.is_empty() {
            // It takes long, on a thread that may. One that panics has closed them.
            let _ = tokio::task::spawn_blocking(|| drop(files)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use std::process::{Command, Stdio};

    /// Whether nobody can write to a pipe any more.
    fn is_over(reading: &OwnedFd) -> bool {
        let mut pipe = [PollFd::new(reading, PollFlags::IN)];
        poll(&mut pipe, Some(&Timespec::default())).unwrap();
        pipe[0].revents().contains(PollFlags::HUP)
    }

    #[tokio::test]
    async fn what_a_process_has_open_stays_so_beyond_its_end_until_it_is_closed() {
        let (reading, writing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let mut command = Command::new("sleep");
        let mut child = command.arg("60").stdin(Stdio::null()).stdout(Stdio::from(writing)).spawn().unwrap();
        // It has the other end, too.
        drop(command);
        let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        let mut files = DriverFiles::called(&process, child.id(), "pipe:").unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!files.is_empty() && !is_over(&reading));
        files.close().await;
        assert!(files.is_empty() && is_over(&reading));
    }

    #[test]
    fn a_process_that_has_nothing_of_the_driver_s_has_nothing_that_is_held() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        assert!(DriverFiles::of(&process, child.id()).unwrap().is_empty());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
