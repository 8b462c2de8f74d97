//! Company: with whom a client leaves for another worker, and whether it waits for them where it has come.

use crate::worker::sync::lock;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use torpor_proto::control::worker::Party;

/// A client's company on its way.
#[derive(Debug, Default)]
pub(crate) struct Company {
    party: Mutex<Party>,
    is_held: AtomicBool,
}

impl Company {
    /// It is to go with these; with nobody if there is no party.
    pub(crate) fn set(&self, party: Option<Party>) {
        *lock(&self.party) = party.unwrap_or_default();
    }

    /// With whom it is to go.
    pub(crate) fn party(&self) -> Party {
        lock(&self.party).clone()
    }

    /// It has come, and executes nothing before all have.
    pub(crate) fn hold(&self) {
        self.is_held.store(true, Ordering::Relaxed);
    }

    /// All have, or nobody knows any more.
    pub(crate) fn proceed(&self) {
        self.is_held.store(false, Ordering::Relaxed);
    }

    /// Whether it waits for them.
    pub(crate) fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }
}
