//! The end of a worker's process: waited for, or brought about. The server's own children end with it if it ends in order; those of a
//! server that was killed are the keeper's, and how they ended is not known here.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;
use tokio::time::timeout;

/// A worker's process.
#[derive(Debug)]
pub(super) enum Process {
    /// This server's.
    Child(Child),
    /// Of a server before. Its descriptor is readable once it has ended (pidfd_open(2)).
    Inherited { pid: u32, process: AsyncFd<OwnedFd> },
}

impl Process {
    /// A server before has started it.
    pub(super) fn inherit(pid: u32, process: OwnedFd) -> io::Result<Self> {
        // SAFETY: the OwnedFd, which lives in the AsyncFd, names the same process until it is dropped.
        let process = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) }?;
        Ok(Self::Inherited { pid, process })
    }

    pub(super) fn pid(&self) -> Option<u32> {
        match self {
            Self::Child(child) => child.id(),
            Self::Inherited { pid, .. } => Some(*pid),
        }
    }

    /// A descriptor of the process, whatever its number is later.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Child(child) => {
                let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
                // As long as it was not waited for, the number is this process's.
                Ok(pidfd_open(pid.ok_or(io::ErrorKind::NotFound)?, PidfdFlags::NONBLOCK)?)
            }
            Self::Inherited { process, .. } => process.get_ref().try_clone(),
        }
    }

    pub(super) fn has_ended(&mut self) -> bool {
        match self {
            // An error means that it was waited for already.
            Self::Child(child) => child.try_wait().is_ok_and(|status| status.is_some()),
            Self::Inherited { process, .. } => {
                let mut ended = [PollFd::new(process.get_ref(), PollFlags::IN)];
                poll(&mut ended, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
            }
        }
    }

    /// Kills it. One that is gone already need not be killed.
    pub(super) fn kill(&self) {
        let _ = match self {
            Self::Child(child) => {
                // As long as it was not waited for, the number is this process's.
                let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
                pid.map_or(Ok(()), |pid| rustix::process::kill_process(pid, Signal::KILL))
            }
            Self::Inherited { process, .. } => pidfd_send_signal(process.get_ref(), Signal::KILL),
        };
    }

    /// Waits for its end, and says how it ended.
    pub(super) async fn ends(&mut self) -> String {
        match self {
            Self::Child(child) => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            },
            Self::Inherited { process, .. } => match process.readable().await {
                Ok(_) => "its server was another one, so it is not known how it ended".to_owned(),
                Err(error) => error.to_string(),
            },
        }
    }

    /// As [`Self::ends`], for so long.
    pub(super) async fn ends_within(&mut self, patience: Duration) -> Option<String> {
        timeout(patience, self.ends()).await.ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Self::Inherited { .. } = self {
            // One that has ended is gone: the descriptor names no other.
            self.kill();
        }
    }
}
