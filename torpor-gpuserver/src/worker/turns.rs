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

#[cfg(test)]
mod tests {
    use super::*;
    use torpor_proto::layout::AddressRange;

    fn link(client: u64) -> Arc<Link> {
        Arc::new(Link::new(client, "f", AddressRange::arena(client as u32).unwrap()))
    }

    #[test]
    fn turns_are_taken_in_the_order_of_asking() {
        let turns = Turns::new(1);
        let [first, second, third] = [1, 2, 3].map(link);
        assert!(turns.take(&first) && turns.take(&first));
        assert!(!turns.is_contended());
        assert!(!turns.take(&second) && !turns.take(&third) && !turns.take(&second));
        assert!(turns.is_contended());
        turns.give_up(1);
        assert!(!turns.take(&third), "it is not the next one");
        assert!(turns.take(&second));
        assert!(!turns.take(&first), "whoever had a turn is behind those that wait");
        turns.give_up(2);
        assert!(turns.take(&third));
        turns.give_up(3);
        assert!(turns.take(&first));
        assert!(!turns.is_contended());
    }

    #[test]
    fn a_place_in_the_line_can_be_given_up() {
        let turns = Turns::new(2);
        let [first, second, third, fourth] = [1, 2, 3, 4].map(link);
        assert!(turns.take(&first) && turns.take(&second));
        assert!(!turns.take(&third) && !turns.take(&fourth));
        turns.give_up(3);
        turns.give_up(1);
        assert!(turns.take(&fourth));
        assert!(!turns.is_contended());
    }
}
