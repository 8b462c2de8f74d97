//! The lifeline: the socket by whose end the server and this process learn that the other one is gone.
//!
//! Its descriptor is one of the program's, which may close any number and open something else under it. Then the server has
//! seen the end of this process, whatever is behind the number now.

use super::descriptor::DescriptorIdentity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};
use std::os::fd::OwnedFd;
use torpor_proto::handover;

/// The connection.
pub(super) struct Lifeline {
    socket: OwnedFd,
    identity: Option<DescriptorIdentity>,
}

/// Who ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Ended {
    /// The server, which is gone.
    #[error("the server is gone; every further CUDA call fails")]
    ByServer,
    /// This program.
    #[error(
        "the program has closed a descriptor that is not its own, and with it this library's connection to the server, which \
         takes the process for ended; every further CUDA call fails"
    )]
    ByProgram,
}

impl Lifeline {
    /// Of a connected socket, which is this library's now.
    pub(super) fn new(socket: OwnedFd) -> Self {
        let identity = DescriptorIdentity::of(&socket);
        Self { socket, identity }
    }

    /// What tells its descriptor from whatever the program may have there later.
    pub(super) fn identity(&self) -> Option<DescriptorIdentity> {
        self.identity
    }

    /// Who has ended it, if anybody has. Makes two system calls.
    pub(super) fn ended(&self) -> Option<Ended> {
        if self.identity.is_some_and(|identity| identity.number().is_none()) {
            return Some(Ended::ByProgram);
        }
        let mut socket = [PollFd::new(&self.socket, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let has_spoken = poll(&mut socket, Some(&now)).is_ok_and(|ready| ready > 0);
        (has_spoken && !self.hands_over_again()).then_some(Ended::ByServer)
    }

    /// Whether there is nothing but a second handover to read: the server was replaced by one that cannot know of the first. It never
    /// sends anything else, so anything else is the end of the connection.
    fn hands_over_again(&self) -> bool {
        let mut byte = [0];
        let flags = RecvFlags::DONTWAIT;
        // Its descriptors are closed, as nobody makes room for them here.
        matches!(recv(&self.socket, &mut byte, flags), Ok((_, 1))) && byte == [handover::TAKE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, AsRawFd, IntoRawFd};
    use std::os::unix::net::UnixStream;

    #[test]
    fn who_ended_it_is_told_apart() {
        let (ours, servers) = UnixStream::pair().unwrap();
        let lifeline = Lifeline::new(ours.into());
        assert_eq!(lifeline.ended(), None);
        // By the server after the one that did.
        handover::send(&servers, &[handover::TAKE], &[servers.as_fd()]).unwrap();
        assert_eq!((lifeline.ended(), lifeline.ended()), (None, None));
        drop(servers);
        assert_eq!(lifeline.ended(), Some(Ended::ByServer));

        let (ours, _servers) = UnixStream::pair().unwrap();
        let (programs, _other_end) = UnixStream::pair().unwrap();
        let lifeline = Lifeline::new(ours.into());
        // SAFETY: the program's descriptor takes the place of the lifeline's, which closes it as its own from now on.
        unsafe { libc::dup2(programs.into_raw_fd(), lifeline.socket.as_raw_fd()) };
        assert_eq!(lifeline.ended(), Some(Ended::ByProgram), "though there is nothing to read");
    }
}
