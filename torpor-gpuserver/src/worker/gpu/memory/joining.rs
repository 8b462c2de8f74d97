//! Who is active beside whom, as far as the memory says so.
//!
//! Ranks of one function (`mailbox/gate.rs`) may wait for each other's work. So nobody takes his turn whose room one of them would have to
//! give up while its sibling is still to come: he might keep the sibling out, and wait for the first one for ever.

use crate::policy::lean::{self, Crowded, Entry, Fit};
use crate::policy::sharing::{self, ActiveLimit};
use crate::worker::gpu::memory::client::Client;
use crate::worker::gpu::memory::{GpuMemory, State};
use crate::worker::sync::lock;
use std::time::Duration;

/// Ranks of one function on this GPU, which are more than can be active together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    /// How many they are.
    pub(crate) ranks: usize,
    /// What they need together.
    pub(crate) needed_bytes: u64,
    /// What there is for them.
    pub(crate) room_bytes: u64,
    /// How long the turn has lasted of that one of the others which has had it for longest.
    pub(crate) turn_lasts: Duration,
    /// Nobody has asked before.
    pub(crate) is_news: bool,
}

impl GpuMemory {
    /// Makes the client active if it may be, beside `active` others, with all that it has allocated and `more_bytes`, or with a part
    /// if it is `fit` for that. Only an idle client can be evicted.
    pub(crate) fn join(
        &self,
        client: u64,
        (more_bytes, fit): (u64, impl FnOnce() -> Option<Fit>),
        limit: ActiveLimit,
        active: usize,
    ) -> Option<Entry> {
        let mut state = lock(&self.state);
        let its = state.clients.get(&client)?;
        let goes_first = its.link.gate.goes_first();
        if state.neighbours.waits_outside() && !goes_first {
            return None;
        }
        let needed_bytes = its.needed_bytes().saturating_add(more_bytes);
        let with_turn = || state.clients.values().filter(|other| other.active && other.link.client != client);
        let (limit, active) = match limit {
            // Whatever those have been promised whose work waits for it.
            _ if goes_first => (ActiveLimit::Auto, with_turn().count()),
            // One that has given its turn up and has work for which a sibling is needed.
            ActiveLimit::Auto if with_turn().any(|other| state.has_sibling(other)) => (limit, active.max(1)),
            limit => (limit, active),
        };
        let memory =
            || state.beside(client, if goes_first { Client::held_bytes } else { Client::staying_bytes });
        let joins = sharing::joins(limit, active, needed_bytes, memory);
        // Who has everything puts nobody out.
        let is_missing = more_bytes == 0 && its.bytes < needed_bytes;
        let is_busy = limit == ActiveLimit::Auto && is_missing && its.is_busy();
        let (left_bytes, room_bytes) = if is_busy {
            (state.left_by_busy(client), state.beside(client, Client::staying_bytes).room_bytes())
        } else {
            (0, 0)
        };
        let entry = lean::entry(Crowded { joins, is_busy, needed_bytes, left_bytes, room_bytes }, fit)?;
        state.use_by(client, true);
        if let Some(client) = state.clients.get_mut(&client) {
            client.lean = match entry {
                Entry::Whole => None,
                Entry::Lean(bytes) => Some(bytes),
            };
        }
        Some(entry)
    }

    /// The client, which is active with a part of its memory, has reserved what it was promised.
    pub(crate) fn keep_promise(&self, client: u64) {
        if let Some(client) = lock(&self.state).clients.get_mut(&client) {
            client.lean = client.lean.and(Some(0));
        }
    }

    /// All of the client's memory is there.
    pub(crate) fn become_whole(&self, client: u64) {
        if let Some(client) = lock(&self.state).clients.get_mut(&client) {
            client.lean = None;
        }
    }

    /// Reserves memory for an active client, if that is nobody's.
    pub(crate) fn reserve_free(&self, client: u64, bytes: u64) -> bool {
        let mut state = lock(&self.state);
        let wanted = state.used_bytes.saturating_add(bytes);
        let is_free = wanted <= state.room_bytes();
        if is_free && let Some(client) = state.clients.get_mut(&client) {
            client.bytes += bytes;
            state.used_bytes = wanted;
        }
        is_free
    }

    /// The client is active no longer.
    pub(crate) fn part(&self, client: u64) {
        let mut state = lock(&self.state);
        if let Some(client) = state.clients.get_mut(&client) {
            client.lean = None;
        }
        state.use_by(client, false);
        state.wake_waiting();
    }

    /// The client and its siblings here, if they have no room together with `more_bytes`.
    pub(crate) fn crowd(&self, client: u64, more_bytes: u64) -> Option<Crowd> {
        let mut state = lock(&self.state);
        let its = state.clients.get(&client)?;
        let siblings = || state.clients.values().filter(|other| other.link.is_sibling_of(&its.link));
        let turn_lasts =
            siblings().filter(|other| other.active).map(|other| other.link.turn.lasts()).max()?;
        let pinned =
            state.clients.values().filter(|other| other.pinned && !other.link.is_sibling_of(&its.link));
        let pinned_bytes: u64 =
            pinned.filter(|other| other.link.client != client).map(|other| other.bytes).sum();
        let taken_bytes = pinned_bytes.saturating_add(state.context_bytes);
        let room_bytes = state.available_bytes.saturating_sub(taken_bytes);
        let needed = siblings().chain([its]).map(Client::needed_bytes);
        let needed_bytes = needed.fold(more_bytes, u64::saturating_add);
        if needed_bytes <= room_bytes {
            return None;
        }
        let (ranks, function) = (siblings().count() + 1, its.link.function.clone());
        let is_news = state.crowds.insert(function);
        Some(Crowd { ranks, needed_bytes, room_bytes, turn_lasts, is_news })
    }
}

impl State {
    /// What a client finds that wants to be active.
    fn beside(&self, client: u64, staying_bytes: impl Fn(&Client) -> u64) -> sharing::Memory {
        let others = self.clients.values().filter(|other| other.link.client != client);
        sharing::Memory {
            available_bytes: self.available_bytes.saturating_sub(self.context_bytes),
            staying_bytes: others.map(staying_bytes).collect(),
        }
    }

    /// What those leave to a client that are active, or were a moment ago and have what they need for the next time.
    fn left_by_busy(&self, client: u64) -> u64 {
        let others = self.clients.values().filter(|other| other.link.client != client);
        let theirs = others.map(|other| match other.is_busy() {
            true => other.bytes,
            false => other.staying_bytes(),
        });
        let room_bytes = self.room_bytes().saturating_sub(self.context_bytes);
        theirs.fold(room_bytes, u64::saturating_sub)
    }

    fn has_sibling(&self, client: &Client) -> bool {
        self.clients.values().any(|other| other.link.is_sibling_of(&client.link))
    }

    /// Whether a client's work may wait for a sibling that is in line here.
    pub(super) fn awaits_one_of(&self, line: &[u64], client: &Client) -> bool {
        let mut waiting = line.iter().filter_map(|waiting| self.clients.get(waiting));
        waiting.any(|waiting| waiting.link.is_sibling_of(&client.link))
    }
}
