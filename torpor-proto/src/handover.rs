//! Handing descriptors to another process over a Unix socket. Source: unix(7), SCM_RIGHTS.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// First byte of what a lifeline hands over: with it come the descriptors of a client's memory.
pub const TAKE: u8 = 1;

/// In its place: no memory, and the reason follows.
pub const REFUSED: u8 = 0;

/// In its place: no memory now, and the reason follows. The next hello may end otherwise.
pub const LATER: u8 = 2;

/// Descriptors in one message, at most.
pub const MAX_DESCRIPTORS: usize = 4;

/// Bytes of a message, at most.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// Sends a message with descriptors, in one piece.
///
/// # Errors
/// `InvalidInput` if the message is too large, or what the kernel says.
pub fn send(socket: impl AsFd, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if message.len() > MAX_MESSAGE_BYTES || descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives a message and its descriptors. An empty message means that the other side is gone.
///
/// # Errors
/// What the kernel says.
pub fn receive(socket: impl AsFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    receive_with(socket, RecvFlags::empty())
}

/// As [`receive`], but the message stays the next one until it is [passed over](pass_over).
///
/// # Errors
/// What the kernel says.
pub fn peek(socket: impl AsFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    receive_with(socket, RecvFlags::PEEK)
}

/// Takes the next message of a socket that keeps boundaries, whatever it is; its descriptors are closed.
///
/// # Errors
/// What the kernel says.
pub fn pass_over(socket: impl AsFd) -> io::Result<()> {
    rustix::net::recv(socket, &mut [0_u8; 1], RecvFlags::TRUNC)?;
    Ok(())
}

fn receive_with(socket: impl AsFd, flags: RecvFlags) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut message = vec![0; MAX_MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut message)],
        &mut ancillary,
        flags | RecvFlags::CMSG_CLOEXEC,
    )?;
    message.truncate(received.bytes);
    let descriptors = ancillary
        .drain()
        .filter_map(|item| {
            if let RecvAncillaryMessage::ScmRights(descriptors) = item { Some(descriptors) } else { None }
        })
        .flatten()
        .collect();
    Ok((message, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_was_looked_at_is_still_there_until_it_is_passed_over() {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = pair.unwrap();
        send(&ours, b"first", &[ours.as_fd()]).unwrap();
        send(&ours, b"second", &[]).unwrap();
        for _ in 0..2 {
            let (message, descriptors) = peek(&theirs).unwrap();
            assert_eq!((message.as_slice(), descriptors.len()), (&b"first"[..], 1));
        }
        pass_over(&theirs).unwrap();
        assert_eq!(receive(&theirs).unwrap().0, b"second");
    }

    #[test]
    fn a_descriptor_arrives_as_the_same_file() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"shared").unwrap();
        file.rewind().unwrap();
        send(&ours, b"take this", &[file.as_fd()]).unwrap();
        let (message, descriptors) = receive(&theirs).unwrap();
        assert_eq!(message, b"take this");
        let mut text = String::new();
        std::fs::File::from(descriptors.into_iter().next().unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "shared");
        drop(ours);
        assert!(receive(&theirs).unwrap().0.is_empty());
    }
}
