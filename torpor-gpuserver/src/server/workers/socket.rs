//! Messages between the node server and a worker: a Unix socket pair that keeps message boundaries and carries
//! descriptors (SOCK_SEQPACKET, unix(7)).

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use torpor_proto::control::Message;
use torpor_proto::handover;

/// The server's end.
#[derive(Debug)]
pub struct PacketSocket(AsyncFd<OwnedFd>);

impl PacketSocket {
    /// The server's end, and the worker's, which blocks.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self::of(ours)?, theirs))
    }

    /// A server's end that is there already.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn of(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        // SAFETY: the OwnedFd, which lives in the AsyncFd, names the same open socket until it is dropped.
        let registered = unsafe { AsyncFd::register(socket) };
        Ok(Self(registered?))
    }

    /// To be kept.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }

    /// Ends the conversation, whoever else holds this end.
    pub fn close(&self) {
        // One whose other end is gone has ended.
        let _ = rustix::net::shutdown(self.0.get_ref(), rustix::net::Shutdown::Both);
    }

    /// Sends a message, with descriptors.
    ///
    /// # Errors
    /// What the kernel says; `BrokenPipe` if the worker is gone.
    pub async fn send(&self, message: &impl Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = message.encode_to_vec();
        self.0.async_io(Interest::WRITABLE, |socket| handover::send(socket, &bytes, descriptors)).await
    }

    /// The next message, or `None` if the worker is gone. May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// `InvalidData` if it is no such message, or what the kernel says.
    pub async fn receive<M: Message + Default>(&self) -> io::Result<Option<M>> {
        Ok(self.receive_all().await?.map(|(message, _)| message))
    }

    /// As [`Self::receive`], with the descriptors that come with the message.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub async fn receive_all<M: Message + Default>(&self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        self.receive_by(|socket| handover::receive(socket)).await
    }

    /// As [`Self::receive_all`], but the message stays the next one until it is [passed over](Self::pass_over): a server that is killed
    /// meanwhile leaves it to the next one.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub async fn peek<M: Message + Default>(&self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        self.receive_by(|socket| handover::peek(socket)).await
    }

    /// The message that was looked at has been heard.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn pass_over(&self) -> io::Result<()> {
        handover::pass_over(self.0.get_ref())
    }

    async fn receive_by<M: Message + Default>(
        &self,
        receive: impl Fn(&OwnedFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)>,
    ) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let receive = || self.0.async_io(Interest::READABLE, |socket| receive(socket));
        let (bytes, descriptors) = match receive().await {
            // The worker died with messages unread. What it said before is still there, behind this error (unix(7) does not
            // say so; the kernel's __skb_try_recv_datagram does).
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => receive().await?,
            received => received?,
        };
        if bytes.is_empty() {
            return Ok(None);
        }
        M::decode(bytes.as_slice())
            .map(|message| Some((message, descriptors)))
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use torpor_proto::control::worker::{Detach, Detached, FromWorker, ToWorker, from_worker, to_worker};

    #[tokio::test]
    async fn the_last_words_of_a_worker_arrive_though_it_left_messages_unread() {
        let (server, worker) = PacketSocket::pair().unwrap();
        server.send(&ToWorker::default(), &[]).await.unwrap();
        let body = Some(from_worker::Body::Detached(Detached { client: 3 }));
        let last = FromWorker { body, number: 1 };
        handover::send(&worker, &last.encode_to_vec(), &[]).unwrap();
        drop(worker);
        assert_eq!(server.receive::<FromWorker>().await.unwrap(), Some(last));
        assert_eq!(server.receive::<FromWorker>().await.unwrap(), None);
    }

    #[tokio::test]
    async fn messages_keep_their_boundaries_and_descriptors() {
        let (server, worker) = PacketSocket::pair().unwrap();
        for client in [3, 4] {
            let message = ToWorker { body: Some(to_worker::Body::Detach(Detach { client })) };
            server.send(&message, &[worker.as_fd()]).await.unwrap();
        }
        for client in [3, 4] {
            let (bytes, descriptors) = handover::receive(&worker).unwrap();
            let message = ToWorker::decode(bytes.as_slice()).unwrap();
            assert_eq!(message.body, Some(to_worker::Body::Detach(Detach { client })));
            assert_eq!(descriptors.len(), 1);
        }
        handover::send(&worker, b"\xff\xff\xff", &[]).unwrap();
        let nonsense = server.receive::<FromWorker>().await.unwrap_err();
        assert_eq!(nonsense.kind(), io::ErrorKind::InvalidData);
        drop(worker);
        assert_eq!(server.receive::<FromWorker>().await.unwrap(), None);
    }
}
