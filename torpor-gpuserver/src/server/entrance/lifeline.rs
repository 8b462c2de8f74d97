//! The lifeline of a client: it brings a token, takes its shared memory, and is alive as long as it holds on.
//!
//! What the client gets is one message: [`TAKE`] with two descriptors (channel, host range), or [`REFUSED`] or [`LATER`] and
//! the reason why not. It has nothing to say after its token; a client that does is dropped.
//!
//! A client is gone when its connection ends *or* its process does: a child that it forked may hold the connection
//! open, and a process that closed it can take its memory along but not be served.

use crate::server::clients::{ClientId, Token};
use crate::server::entrance::function::Entrance;
use crate::server::node::Node;
use crate::server::workers::gpu::stopped;
use crate::server::workers::order::ClientMemory;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;
use torpor_proto::handover::{self, LATER, REFUSED, TAKE};

/// How long a connection may take to bring its token, and to take what it gets.
const PATIENCE: Duration = Duration::from_secs(2);

/// Serves a connection until its client is gone.
pub async fn serve(mut stream: UnixStream, entrance: Entrance) {
    let mut token: Token = [0; 16];
    let brought = timeout(PATIENCE, stream.read_exact(&mut token)).await;
    if !matches!(brought, Ok(Ok(_))) {
        return;
    }
    let Some(node) = entrance.node.upgrade() else { return };
    let pid = peer_pid(&stream);
    let process = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK).ok());
    let known_pid = pid.map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
    let (client, memory) = match node.join(&entrance.function, &token, known_pid).await {
        Ok(joined) => joined,
        Err(error) => {
            let function = &*entrance.function;
            entrance.log.tell(|| tracing::warn!(function, pid = known_pid, "client refused: {error}"));
            let verdict = if error.is_transient() { LATER } else { REFUSED };
            let refusal = [&[verdict], error.to_string().as_bytes()].concat();
            let _ = timeout(PATIENCE, stream.write_all(&refusal)).await;
            return;
        }
    };
    node.keep_memory(client, &memory, stream.as_fd(), process.as_ref().map(AsFd::as_fd));
    if hand(&stream, &node, client, &memory, &entrance).await {
        let function = &*entrance.function;
        entrance.log.tell(|| tracing::info!(client = client.0, function, pid = known_pid, "client served"));
        live(&mut stream, process, client, &node, &entrance).await;
    }
    leave(stream, client, &node, &entrance).await;
}

/// Goes on with a client of the server before, which may not have handed it its memory.
pub async fn resume(
    lifeline: OwnedFd,
    process: Option<OwnedFd>,
    client: ClientId,
    memory: Arc<ClientMemory>,
    handed: bool,
    entrance: Entrance,
) {
    let Some(node) = entrance.node.upgrade() else { return };
    let lifeline = std::os::unix::net::UnixStream::from(lifeline);
    match lifeline.set_nonblocking(true).and_then(|()| UnixStream::from_std(lifeline)) {
        Ok(mut stream) => {
            // Said twice, it is heard once.
            if handed || hand(&stream, &node, client, &memory, &entrance).await {
                live(&mut stream, process, client, &node, &entrance).await;
            }
            leave(stream, client, &node, &entrance).await;
        }
        Err(error) => {
            tracing::error!(client = client.0, "a client's lifeline cannot be used any more: {error}");
            node.part(client).await;
        }
    }
}

/// Hands a client its memory. False if it does not take it.
async fn hand(
    stream: &UnixStream,
    node: &Node,
    client: ClientId,
    memory: &ClientMemory,
    entrance: &Entrance,
) -> bool {
    let descriptors = [memory.channel_file.as_fd(), memory.host_file.as_fd()];
    let handing = stream.async_io(Interest::WRITABLE, || handover::send(stream, &[TAKE], &descriptors));
    let taken = matches!(timeout(PATIENCE, handing).await, Ok(Ok(())));
    if taken {
        node.note_handed(client);
    } else {
        entrance.log.tell(|| tracing::warn!(client = client.0, "client gone before it took its memory"));
    }
    taken
}

/// Waits until a client is gone, or the server is to end.
async fn live(
    stream: &mut UnixStream,
    process: Option<OwnedFd>,
    client: ClientId,
    node: &Node,
    entrance: &Entrance,
) {
    let mut stopping = node.stopping();
    tokio::select! {
        spoke = ended(stream) => if spoke {
            entrance.log.tell(|| {
                tracing::warn!(client = client.0, "client dropped: it speaks where it has nothing to say");
            });
        },
        () = exited(process) => {}
        () = stopped(&mut stopping) => {}
    }
}

/// A client is gone.
async fn leave(stream: UnixStream, client: ClientId, node: &Node, entrance: &Entrance) {
    // Its end, whoever else holds this one.
    let _ = rustix::net::shutdown(&stream, rustix::net::Shutdown::Both);
    drop(stream);
    let parted = Instant::now();
    node.part(client).await;
    let took_ms = parted.elapsed().as_millis();
    entrance.log.tell(|| tracing::info!(client = client.0, took_ms, "client gone"));
}

/// Waits for the connection's end; true if the client sends something instead.
async fn ended(stream: &mut UnixStream) -> bool {
    let mut byte = [0];
    matches!(stream.read(&mut byte).await, Ok(1))
}

/// Waits for the process's end; for ever if it cannot be watched.
async fn exited(process: Option<OwnedFd>) {
    let watched = process.and_then(|process| watch_process(process).ok());
    let readable = match &watched {
        Some(process) => process.readable().await.map(drop),
        None => std::future::pending().await,
    };
    if let Err(error) = readable {
        tracing::warn!("a client's process cannot be watched any more: {error}");
        std::future::pending::<()>().await;
    }
}

/// A process's descriptor becomes readable when it has ended. Source: pidfd_open(2).
fn watch_process(process: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the OwnedFd, which lives in the AsyncFd, names the same process until it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) };
    Ok(registered?)
}

/// The process that connected, as this process's kernel namespace names it; `None` if it does not.
fn peer_pid(stream: &UnixStream) -> Option<Pid> {
    stream.peer_cred().ok()?.pid().and_then(Pid::from_raw)
}
