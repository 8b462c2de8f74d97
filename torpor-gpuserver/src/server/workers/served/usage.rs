//! Reports of a worker's usage, which may come in several parts.

use std::collections::VecDeque;
use tokio::sync::oneshot;
use torpor_proto::control::worker::{ClientUsage, Usage};
use torpor_proto::layout::MAX_CLIENTS;

/// Those that the worker was asked for, in the order in which it answers.
#[derive(Debug, Default)]
pub(super) struct UsageReports {
    waiting: VecDeque<oneshot::Sender<Usage>>,
    /// Parts of the next one that have come.
    parts: Vec<ClientUsage>,
}

impl UsageReports {
    /// The worker is asked for another one.
    pub(super) fn ask(&mut self, done: oneshot::Sender<Usage>) {
        self.waiting.push_back(done);
    }

    /// A part has come.
    pub(super) fn hear(&mut self, mut usage: Usage) {
        self.parts.append(&mut usage.clients);
        // A worker that never ends its list has more clients than there can be.
        if usage.more && self.parts.len() < MAX_CLIENTS as usize * 2 {
            return;
        }
        usage.clients = std::mem::take(&mut self.parts);
        if let Some(done) = self.waiting.pop_front() {
            // Nobody may want it any more.
            let _ = done.send(usage);
        }
    }

    /// None of them comes.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.parts.clear();
    }
}
