//! What is sent to a worker, while it is listened to: a worker that waits until it has been heard takes no messages.

use crate::server::workers::order::Outgoing;
use crate::server::workers::socket::PacketSocket;
use std::io::{self, ErrorKind};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long a worker may leave its messages unread before another takes its place. Its clients fail then, so a node that
/// is too busy to run it, or somebody who stopped it to look at it, has time.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Sends what is put into the outbox. Returns only if the worker takes none at all.
pub(super) async fn send_all(
    socket: &PacketSocket,
    mut outgoing: mpsc::UnboundedReceiver<Outgoing>,
) -> io::Error {
    while let Some(Outgoing { message, attachment }) = outgoing.recv().await {
        match timeout(SEND_TIMEOUT, socket.send(&message, &attachment.descriptors())).await {
            Ok(Ok(())) => {}
            // It is gone. Whoever listens finds that out too, after its last words.
            Ok(Err(error)) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                break;
            }
            Ok(Err(error)) => return error,
            Err(slow) => return slow.into(),
        }
    }
    std::future::pending().await
}
