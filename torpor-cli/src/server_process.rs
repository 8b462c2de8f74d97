//! The process of a server, by the lock of its directory: whether there is one that does not listen, and whether it is
//! stopped.

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::os::fd::OwnedFd;
use torpor_proto::directory::ServerDirectory;

/// Whoever holds the lock of a server's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerProcess {
    /// As the server knows itself; absent if it has not written that yet.
    pid: Option<i32>,
}

impl ServerProcess {
    /// That of a directory, if there is one.
    #[must_use]
    pub fn of(directory: &ServerDirectory) -> Option<Self> {
        let path = directory.lock_file();
        // The server has it for itself; to look, sharing it for a moment is enough.
        match File::open(&path).ok()?.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
                Some(Self { pid })
            }
            _ => None,
        }
    }

    /// A descriptor that is readable once it has ended, if its process can be found. Source: pidfd_open(2).
    #[must_use]
    pub fn watch(self) -> Option<OwnedFd> {
        pidfd_open(Pid::from_raw(self.pid?)?, PidfdFlags::empty()).ok()
    }

    /// Whether a signal stopped it. Source: proc_pid_stat(5), the state behind the name in brackets.
    fn is_stopped(self) -> bool {
        let stat = self.pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
        let state = stat.as_deref().and_then(|stat| stat.rsplit_once(')')).map(|(_, rest)| rest.trim_start());
        state.is_some_and(|state| state.starts_with(['T', 't']))
    }
}

impl fmt::Display for ServerProcess {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) if self.is_stopped() => {
                write!(formatter, "process {pid}, which is stopped: `kill -CONT {pid}` lets it go on")
            }
            Some(pid) => write!(formatter, "process {pid}"),
            None => formatter.write_str("a process that has not written its number yet"),
        }
    }
}

/// "(process 7)", or nothing if nobody holds the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InBrackets(pub Option<ServerProcess>);

impl fmt::Display for InBrackets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |process| write!(formatter, " ({process})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_the_lock_is_named_and_nobody_else() {
        let home = tempfile::tempdir().unwrap();
        let directory = ServerDirectory::new(home.path());
        assert_eq!(ServerProcess::of(&directory), None);
        let lock = File::create(directory.lock_file()).unwrap();
        assert_eq!(ServerProcess::of(&directory), None);
        lock.lock().unwrap();
        assert_eq!(ServerProcess::of(&directory), Some(ServerProcess { pid: None }));
        fs::write(directory.lock_file(), format!("{}\n", std::process::id())).unwrap();
        let process = ServerProcess::of(&directory).unwrap();
        assert_eq!(process.to_string(), format!("process {}", std::process::id()));
        assert!(process.watch().is_some());
        assert_eq!(InBrackets(None).to_string(), "");
    }
}
