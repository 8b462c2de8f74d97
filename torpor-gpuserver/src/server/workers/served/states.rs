//! What clients were when they were idle last, or when they came: from that another worker can go on.

use crate::server::keeper::{Keeper, numbered};
use crate::state_file::{self, Void};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Under what kind of name clients' states are kept.
pub const STATE: &str = "state";

/// Bytes of all states of one worker's clients, at most.
const MOST_BYTES: u64 = 1 << 30;

/// The states of a worker's clients, of which each may hold no longer.
#[derive(Debug, Default)]
pub(super) struct States {
    states: HashMap<u64, Arc<OwnedFd>>,
    keeper: Keeper,
}

impl States {
    /// None yet.
    pub(super) fn new(keeper: &Keeper) -> Self {
        Self { states: HashMap::new(), keeper: keeper.clone() }
    }

    /// The server before had this of a client, and its keeper has it still.
    pub(super) fn inherit(&mut self, client: u64, state: Arc<OwnedFd>) {
        self.states.insert(client, state);
    }

    /// A client is this now.
    pub(super) fn keep(&mut self, client: u64, state: Arc<OwnedFd>) {
        self.states.remove(&client);
        let kept_bytes: u64 = self.states.values().map(state_file::bytes).sum();
        if kept_bytes.saturating_add(state_file::bytes(&state)) <= MOST_BYTES {
            self.keeper.keep(&numbered(STATE, client), &(), &[state.as_fd()]);
            self.states.insert(client, state);
        } else {
            tracing::warn!(
                client,
                "it would not survive its worker: the states of others take {MOST_BYTES} bytes"
            );
        }
    }

    /// A client that no worker has is this, until one has it again.
    pub(super) fn note_released(&self, client: u64, state: &OwnedFd) {
        self.keeper.keep(&numbered(STATE, client), &(), &[state.as_fd()]);
    }

    /// What a client is still.
    pub(super) fn that_holds(&self, client: u64) -> Option<&Arc<OwnedFd>> {
        self.states.get(&client).filter(|state| state_file::holds(state))
    }

    /// Why nothing is left of what a client was; `None` if something is.
    pub(super) fn why_void(&self, client: u64) -> Option<&'static str> {
        match self.states.get(&client) {
            None => Some("it had not been saved since it came"),
            Some(state) if state_file::holds(state) => None,
            Some(state) => Some(state_file::void(state).map_or("its state could not be read", Void::because)),
        }
    }

    /// What was known of a client, whether it holds or not; it is known no longer.
    pub(super) fn remove(&mut self, client: u64) -> Option<Arc<OwnedFd>> {
        self.states.remove(&client)
    }

    /// The same of all.
    pub(super) fn clear(&mut self) {
        self.states.clear();
    }
}
