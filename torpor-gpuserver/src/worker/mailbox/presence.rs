//! What the server was told of a session's beginning, for another server that did not hear it, and whether it waits for its end.

use crate::worker::server_socket::ServerSocket;
use crate::worker::sync::lock;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use torpor_proto::control::worker::{Attached, ClientFault, from_worker};

/// How far a session has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Told {
    /// The server knows nothing of it yet.
    #[default]
    Coming,
    /// It is made, and does again what it did.
    Again,
    /// Its client is served.
    Served,
    /// Its client is not, and will not be.
    Refused,
}

/// What was told, held while more is: so what another server is told is in order with it.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    told: Mutex<Told>,
    /// The server that is there now waits for its end. Changed with the list of sessions locked.
    end_awaited: AtomicBool,
}

impl Presence {
    /// Whether its client is still being made here.
    pub(crate) fn is_coming(&self) -> bool {
        *lock(&self.told) == Told::Coming
    }

    /// The server waits for the session's end.
    pub(crate) fn await_end(&self) {
        self.end_awaited.store(true, Ordering::Relaxed);
    }

    /// Whether the server has waited for it until now.
    pub(crate) fn take_end(&self) -> bool {
        self.end_awaited.swap(false, Ordering::Relaxed)
    }

    /// It is made, and about to do again what it did.
    pub(crate) fn begin_again(&self) {
        *lock(&self.told) = Told::Again;
    }

    /// Its client is served here.
    pub(crate) fn tell_attached(&self, server: &ServerSocket, client: u64) {
        let mut told = lock(&self.told);
        *told = Told::Served;
        server.tell(from_worker::Body::Attached(Attached { client, is_coming: false }));
    }

    /// Its client is not served here (any more).
    pub(crate) fn tell_fault(&self, server: &ServerSocket, client: u64, reason: String) {
        let mut told = lock(&self.told);
        if *told != Told::Served {
            *told = Told::Refused;
        }
        server.tell(from_worker::Body::ClientFault(ClientFault { client, reason }));
    }

    /// Another server hears of it, unless it would have to ask another worker.
    pub(crate) fn tell_again(&self, server: &ServerSocket, client: u64) {
        let told = lock(&self.told);
        if *told != Told::Refused {
            let is_coming = *told != Told::Served;
            server.tell(from_worker::Body::Attached(Attached { client, is_coming }));
        }
    }
}
