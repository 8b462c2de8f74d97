//! What a client that has moved left on the GPU that it came from: it is brought from there, unless somebody needs the room before.

use crate::simulate::link::Source;
use crate::simulate::node::{Client, Node};
use std::time::Duration;

/// How long nobody has to ask for it: as a worker waits.
const KEPT: Duration = Duration::from_secs(2);

/// All memory of a client, on another GPU than its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    from: usize,
    to: usize,
    /// Until when it is kept; absent once it is on its way.
    until: Option<Duration>,
    last_used: u64,
}

impl Left {
    fn is_kept(self, now: Duration) -> bool {
        self.until.is_none_or(|until| until >= now)
    }
}

/// What a client has on a GPU, be it there or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) client: usize,
    pub(super) bytes: u64,
    pub(super) last_used: u64,
}

impl Node<'_> {
    /// A client moves, and leaves its memory for that if there is a path that nobody else reads over, and all of it is there.
    pub(super) fn leave(&mut self, client: usize, to: usize) {
        let (from, now) = (self.clients[client].gpu, self.now);
        let is_taken = |left: Left| (left.from, left.to) == (from, to) && left.is_kept(now);
        let is_free = !self.clients.iter().filter_map(|it| it.left).any(is_taken);
        let is_joined = self.topology.peer_bytes_per_second(from, to).is_some();
        let it = &mut self.clients[client];
        let is_whole = it.resident_bytes == it.model.bytes;
        it.left = (is_whole && is_joined && is_free).then_some(Left {
            from,
            to,
            until: Some(now + KEPT),
            last_used: it.last_used,
        });
        it.resident_bytes = 0;
    }

    /// Where a client's memory comes from that begins to bring all of it.
    pub(super) fn source(&mut self, client: usize) -> Source {
        let now = self.now;
        let left = self.clients[client].left.as_mut().filter(|left| left.is_kept(now));
        let Some(left) = left else { return Source::Host };
        let Some(speed) = self.topology.peer_bytes_per_second(left.from, left.to) else {
            return Source::Host;
        };
        left.until = None;
        self.tally.swaps_from_peers += 1;
        Source::Peer(speed)
    }

    /// What clients have on a GPU.
    pub(super) fn held(&self, gpu: usize) -> Vec<Held> {
        let of_client = |(client, it): (usize, &Client<'_>)| match it.left {
            Some(left) if left.from == gpu && left.is_kept(self.now) => {
                Some(Held { client, bytes: it.model.bytes, last_used: left.last_used })
            }
            _ if it.gpu == gpu && !it.moving && it.resident_bytes > 0 => {
                Some(Held { client, bytes: it.resident_bytes, last_used: it.last_used })
            }
            _ => None,
        };
        self.clients.iter().enumerate().filter_map(of_client).collect()
    }

    /// Somebody needs what a client has on a GPU.
    pub(super) fn evict(&mut self, gpu: usize, client: usize) {
        let it = &mut self.clients[client];
        let Some(left) = it.left.take_if(|left| left.from == gpu) else {
            it.resident_bytes = 0;
            return;
        };
        if left.until.is_none() {
            self.links.go_on_from_host(self.now, left.to);
            self.next_load();
        }
    }
}
