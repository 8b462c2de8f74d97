//! Turns: which clients are active on the GPU. At most a few at once; the others wait in the order of their coming.
//!
//! A session takes a turn with its first GPU command after idleness and gives it up when it is idle: soon if somebody
//! waits, else after the linger.

use crate::worker::shared::{Link, lock};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The turns of one GPU.
#[derive(Debug)]
pub(super) struct Turns {
    limit: usize,
    /// Whether somebody waits: read by every idle session, so it has a word of its own.
    contended: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    active: Vec<Arc<Link>>,
    waiting: VecDeque<Arc<Link>>,
}

impl Turns {
    /// As many turns at once as `limit`, at least one.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), contended: AtomicBool::new(false), queue: Mutex::default() }
    }

    /// Takes a turn if it is the client's: else the client waits in line, and its session asks again when it is woken.
    pub(super) fn take(&self, link: &Arc<Link>) -> bool {
        let mut queue = lock(&self.queue);
        if queue.active.iter().any(|other| other.client == link.client) {
            return true;
        }
        let place = match queue.waiting.iter().position(|other| other.client == link.client) {
            Some(place) => place,
            None => {
                queue.waiting.push_back(link.clone());
                queue.waiting.len() - 1
            }
        };
        let taken = queue.active.len() + place < self.limit;
        if taken {
            queue.waiting.remove(place);
            queue.active.push(link.clone());
        }
        self.note(&queue);
        if !taken {
            // Those that are active but idle sleep until somebody wants what they have.
            queue.active.iter().for_each(|active| active.wake());
        }
        taken
    }

    /// Gives a turn up, or a place in the line.
    pub(super) fn give_up(&self, client: u64) {
        let mut queue = lock(&self.queue);
        queue.active.retain(|link| link.client != client);
        queue.waiting.retain(|link| link.client != client);
        self.note(&queue);
        queue.waiting.iter().take(self.limit.saturating_sub(queue.active.len())).for_each(|next| next.wake());
    }

    /// Whether somebody waits.
    #[inline]
    pub(super) fn is_contended(&self) -> bool {
        self.contended.load(Ordering::Relaxed)
    }

    fn note(&self, queue: &Queue) {
        self.contended.store(!queue.waiting.is_empty(), Ordering::Relaxed);
    }
}
