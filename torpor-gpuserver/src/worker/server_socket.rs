//! The worker's end of its conversation with the node server.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use torpor_proto::control::Message;
use torpor_proto::control::worker::{Covered, FromWorker, Lent, Released, from_worker};
use torpor_proto::handover;

/// A socket that keeps message boundaries, and carries descriptors.
#[derive(Debug)]
pub(crate) struct ServerSocket(OwnedFd);

impl ServerSocket {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The socket's: the server is gone.
    pub(crate) fn send(&self, body: from_worker::Body) -> io::Result<()> {
        self.send_with(body, &[])
    }

    /// Tells the server something. If it is gone, so is this worker soon.
    pub(crate) fn tell(&self, body: from_worker::Body) {
        self.tell_with(body, &[]);
    }

    /// Tells the server that nothing of a client is here any more, and what it is.
    pub(crate) fn tell_released(&self, client: u64, state: &OwnedFd) {
        self.tell_with(from_worker::Body::Released(Released { client }), &[state.as_fd()]);
    }

    /// Gives the server the state of a client that stays here.
    pub(crate) fn tell_covered(&self, client: u64, state: &OwnedFd) {
        self.tell_with(from_worker::Body::Covered(Covered { client }), &[state.as_fd()]);
    }

    /// Gives the server what another worker is to have of a link.
    pub(crate) fn tell_lent(&self, link: u64, files: &[OwnedFd; 2]) {
        let descriptors = files.each_ref().map(OwnedFd::as_fd);
        self.tell_with(from_worker::Body::Lent(Lent { link, failure: String::new() }), &descriptors);
    }

    /// Waits for the next message, with its descriptors. An empty one is the end of the conversation.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn receive(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        handover::receive(&self.0)
    }

    /// Hears nothing more: whoever receives takes this for the end of the conversation. What was sent before still arrives.
    pub(crate) fn stop_hearing(&self) {
        // A server that is gone is not heard either.
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Read);
    }

    fn tell_with(&self, body: from_worker::Body, descriptors: &[BorrowedFd<'_>]) {
        if let Err(error) = self.send_with(body, descriptors) {
            tracing::debug!("the node server cannot be told: {error}");
        }
    }

    fn send_with(&self, body: from_worker::Body, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        handover::send(&self.0, &FromWorker { body: Some(body) }.encode_to_vec(), descriptors)
    }
}
