//! The worker's end of its conversation with the node server.

use crate::worker::sync::lock;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use torpor_proto::control::Message;
use torpor_proto::control::worker::{Covered, FromWorker, Lent, Released, from_worker};
use torpor_proto::handover;

/// How long a worker may take to end by itself whose server and keeper are gone.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(5);

/// A socket that keeps message boundaries, and carries descriptors.
#[derive(Debug)]
pub(crate) struct ServerSocket {
    socket: OwnedFd,
    /// How many messages were sent. Held while one is, so that they arrive in the order of their numbers.
    sent: Mutex<u64>,
}

impl ServerSocket {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, sent: Mutex::default() }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The socket's: the server is gone.
    pub(crate) fn send(&self, body: from_worker::Body) -> io::Result<()> {
        self.send_with(body, &[])
    }

    /// Tells the server something. If it is gone for good, so is this worker soon; one that is being replaced hears it later.
    pub(crate) fn tell(&self, body: from_worker::Body) {
        self.tell_with(body, &[]);
    }

    /// Tells the server that nothing of a client is here any more, and what it is.
    pub(crate) fn tell_released(&self, client: u64, state: &OwnedFd) {
        self.tell_with(from_worker::Body::Released(Released { client }), &[state.as_fd()]);
    }

    /// Gives the server the state of a client that stays here.
    pub(crate) fn tell_covered(&self, client: u64, state: &OwnedFd, by_numbers: bool) {
        self.tell_with(from_worker::Body::Covered(Covered { client, by_numbers }), &[state.as_fd()]);
    }

    /// Gives the server what another worker is to have of a link.
    pub(crate) fn tell_lent(&self, link: u64, files: &[OwnedFd; 2]) {
        let descriptors = files.each_ref().map(OwnedFd::as_fd);
        self.tell_with(from_worker::Body::Lent(Lent { link, failure: String::new() }), &descriptors);
    }

    /// Keeps everybody else from telling the server anything any more, for good.
    pub(crate) fn last_word(&self) -> LastWord<'_> {
        LastWord { socket: self, sent: ManuallyDrop::new(lock(&self.sent)) }
    }

    /// Waits for the next message, with its descriptors. An empty one is the end of the conversation.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn receive(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        handover::receive(&self.socket)
    }

    /// Waits until nobody holds the other end any more, whatever is still to be received.
    pub(crate) fn closed(&self) {
        let mut socket = [PollFd::new(&self.socket, PollFlags::empty())];
        // One that is interrupted looks again; another error means that nobody can know any more.
        while poll(&mut socket, None) == Err(Errno::INTR) {}
    }

    /// Hears nothing more: whoever receives takes this for the end of the conversation. What was sent before still arrives.
    pub(crate) fn stop_hearing(&self) {
        // A server that is gone is not heard either.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Read);
    }

    fn tell_with(&self, body: from_worker::Body, descriptors: &[BorrowedFd<'_>]) {
        if let Err(error) = self.send_with(body, descriptors) {
            tracing::debug!("the node server cannot be told: {error}");
        }
    }

    fn send_with(&self, body: from_worker::Body, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_as_next(&mut lock(&self.sent), body, descriptors)
    }

    fn send_as_next(
        &self,
        sent: &mut u64,
        body: from_worker::Body,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let message = FromWorker { body: Some(body), number: *sent + 1 };
        handover::send(&self.socket, &message.encode_to_vec(), descriptors)?;
        *sent += 1;
        Ok(())
    }
}

/// The right to tell the server one thing more, which nobody else has from then on.
pub(crate) struct LastWord<'a> {
    socket: &'a ServerSocket,
    sent: ManuallyDrop<MutexGuard<'a, u64>>,
}

impl LastWord<'_> {
    /// Tells it, unless the server is gone.
    pub(crate) fn say(mut self, body: from_worker::Body) {
        if let Err(error) = self.socket.send_as_next(&mut self.sent, body, &[]) {
            tracing::debug!("the node server cannot be told: {error}");
        }
    }
}

/// A server that is killed takes its worker along even while that is busy and does not look at its socket. One that has a keeper does
/// not: another server may come, as long as the keeper is there.
///
/// # Errors
/// The kernel's.
pub fn die_with_server(kept: bool) -> io::Result<()> {
    if !kept {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    }
    Ok(())
}

/// Ends the process some time after server and keeper are gone, if it has not ended by itself.
pub(crate) fn die_with_all(server: &Arc<ServerSocket>) -> io::Result<()> {
    let theirs = server.clone();
    let watch = move || {
        theirs.closed();
        std::thread::sleep(ORPHAN_PATIENCE);
        // SAFETY: ends the process; nothing of it is used afterwards.
        unsafe { libc::_exit(1) }
    };
    std::thread::Builder::new().name("orphaned".to_owned()).spawn(watch).map(drop)
}
