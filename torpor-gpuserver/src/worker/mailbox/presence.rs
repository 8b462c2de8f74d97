//! What the server was told of a session's beginning, for another server that did not hear it.

use crate::worker::server_socket::ServerSocket;
use crate::worker::sync::lock;
use std::sync::Mutex;
use torpor_proto::control::worker::{Attached, ClientFault, from_worker};

/// How far a session has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Told {
    /// The server knows nothing of it yet.
    #[default]
    Coming,
    /// Its client is served.
    Served,
    /// Its client is not, and will not be.
    Refused,
}

/// What was told, held while more is: so what another server is told is in order with it.
#[derive(Debug, Default)]
pub(crate) struct Presence(Mutex<Told>);

impl Presence {
    /// Its client is served here.
    pub(crate) fn tell_attached(&self, server: &ServerSocket, client: u64) {
        let mut told = lock(&self.0);
        *told = Told::Served;
        server.tell(from_worker::Body::Attached(Attached { client, is_coming: false }));
    }

    /// Its client is not served here (any more).
    pub(crate) fn tell_fault(&self, server: &ServerSocket, client: u64, reason: String) {
        let mut told = lock(&self.0);
        if *told == Told::Coming {
            *told = Told::Refused;
        }
        server.tell(from_worker::Body::ClientFault(ClientFault { client, reason }));
    }

    /// Another server hears of it, unless it would have to ask another worker.
    pub(crate) fn tell_again(&self, server: &ServerSocket, client: u64) {
        let told = lock(&self.0);
        if *told != Told::Refused {
            let is_coming = *told == Told::Coming;
            server.tell(from_worker::Body::Attached(Attached { client, is_coming }));
        }
    }
}
