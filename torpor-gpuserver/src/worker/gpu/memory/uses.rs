//! When clients used their memory, which says whose will be needed again soon.

use super::{GpuMemory, State};
use crate::policy::reuse::{Past, Reuse};
use crate::worker::sync::lock;
use std::time::Instant;

impl State {
    /// A client begins to use its memory, or ends.
    pub(super) fn use_by(&mut self, client: u64, active: bool) {
        self.uses += 1;
        if let Some(client) = self.clients.get_mut(&client) {
            client.active = active;
            client.last_used = self.uses;
            client.idle_since = Instant::now();
            if active {
                client.reuse.used(client.idle_since - self.began);
            }
            client.stuck = None;
        }
    }
}

impl GpuMemory {
    /// What is known of a client's uses, for the worker to which it goes.
    pub(crate) fn past_uses(&self, client: u64) -> Option<Past> {
        let state = lock(&self.state);
        state.clients.get(&client)?.reuse.past(state.began.elapsed())
    }

    /// What another worker knew of a client's uses.
    pub(crate) fn resume_uses(&self, client: u64, past: Past) {
        let mut state = lock(&self.state);
        let now = state.began.elapsed();
        if let Some(client) = state.clients.get_mut(&client) {
            client.reuse = Reuse::resumed(past, now);
        }
    }
}
