//! Listening sockets that the server before has left, so that nobody who connects meanwhile is turned away.

use crate::server::entrance::tree::FileIdentity;
use crate::server::keeper::{Heritage, Keeper};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use tokio::net::UnixListener;
use torpor_proto::control::keeper::{Place, Sockets};

/// Takes what is left under a name, if that is what listens at these paths.
pub fn inherit<const N: usize>(
    heritage: &mut Heritage,
    name: &str,
    paths: [&Path; N],
) -> Option<[OwnedFd; N]> {
    let (Sockets { places }, sockets) = heritage.take(name)?;
    let there: Option<Vec<Place>> =
        paths.iter().map(|path| FileIdentity::of(path).map(Place::from)).collect();
    (there? == places).then_some(sockets)?.try_into().ok()
}

/// Leaves what listens at these paths to the next server.
pub fn keep<const N: usize>(keeper: &Keeper, name: &str, sockets: [(&UnixListener, &Path); N]) {
    let places = sockets.iter().filter_map(|(_, path)| FileIdentity::of(path)).map(Place::from).collect();
    keeper.keep(name, &Sockets { places }, &sockets.map(|(listener, _)| listener.as_fd()));
}

/// A socket that listens, in this runtime.
///
/// # Errors
/// The kernel's.
pub fn listener(socket: OwnedFd) -> io::Result<UnixListener> {
    let socket = StdListener::from(socket);
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket)
}
