//! The anteroom: what clients had page-locked that went on at another GPU, as it was, for when they come back.
//!
//! Giving page-locked memory back waits for the whole GPU, and locking it anew keeps the driver from everybody else for
//! milliseconds. A client that moves to and fro needs neither. What is kept counts as page-locked memory of its function here,
//! and goes as soon as that is in anybody's way: its share of the budget, or its addresses.

use crate::worker::sync::lock;
use std::any::Any;
use std::collections::VecDeque;
use std::sync::Mutex;
use torpor_proto::layout::AddressRange;

/// Of the page-locked memory that all clients may have here, the part that those may keep that are elsewhere.
const KEPT_PART: u64 = 8;

/// What a client has left.
#[derive(Debug)]
pub(crate) struct Left {
    /// Whose it is.
    pub(crate) client: u64,
    /// Where it is mapped.
    pub(crate) range: AddressRange,
    /// How much of it is page-locked.
    pub(crate) locked_bytes: u64,
    /// It, as sessions know it.
    pub(crate) host: Box<dyn Any + Send>,
}

/// What is kept, the longest away first.
#[derive(Debug)]
pub(crate) struct Anteroom {
    limit_bytes: u64,
    kept: Mutex<VecDeque<Left>>,
}

impl Anteroom {
    /// Beside clients that may have so much page-locked memory.
    pub(crate) fn new(pinned_limit_bytes: u64) -> Self {
        Self { limit_bytes: pinned_limit_bytes / KEPT_PART, kept: Mutex::default() }
    }

    /// Keeps what a client has left, as long as there is room.
    pub(crate) fn keep(&self, left: Left) {
        let mut gone = Vec::new();
        {
            let mut kept = lock(&self.kept);
            kept.push_back(left);
            let mut bytes: u64 = kept.iter().map(|left| left.locked_bytes).sum();
            while bytes > self.limit_bytes
                && let Some(longest) = kept.pop_front()
            {
                bytes -= longest.locked_bytes;
                gone.push(longest);
            }
        }
        // That waits for the GPU, and nobody for that.
        drop(gone);
    }

    /// What a client left that comes back to these addresses. What others left there goes.
    pub(crate) fn take(&self, client: u64, range: AddressRange) -> Option<Left> {
        let there = self.remove(|left| left.range.overlaps(range));
        there.into_iter().find(|left| left.client == client)
    }

    /// What a client left that will not come back.
    pub(crate) fn forget(&self, client: u64) -> Option<Left> {
        self.remove(|left| left.client == client).pop_front()
    }

    /// All of it goes. False if there is nothing.
    pub(crate) fn clear(&self) -> bool {
        !self.remove(|_| true).is_empty()
    }

    fn remove(&self, which: impl Fn(&Left) -> bool) -> VecDeque<Left> {
        let mut kept = lock(&self.kept);
        let (gone, stays) = kept.drain(..).partition(which);
        *kept = stays;
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(client: u64, address: u64, locked_bytes: u64) -> Left {
        let range = AddressRange { address, bytes: 0x1000 };
        Left { client, range, locked_bytes, host: Box::new(client) }
    }

    #[test]
    fn who_comes_back_finds_what_it_left_and_others_nothing() {
        let anteroom = Anteroom::new(80);
        anteroom.keep(left(1, 0x1000, 4));
        anteroom.keep(left(2, 0x2000, 4));
        let range = AddressRange { address: 0x1000, bytes: 0x1000 };
        assert_eq!(anteroom.take(1, range).map(|left| left.client), Some(1));
        assert!(anteroom.take(1, range).is_none(), "once");
        let range = AddressRange { address: 0x2000, bytes: 0x1000 };
        assert!(anteroom.take(3, range).is_none(), "another's");
        assert!(anteroom.take(2, range).is_none(), "its addresses were wanted");
    }

    #[test]
    fn the_longest_away_makes_room() {
        let anteroom = Anteroom::new(80);
        (1..=3).for_each(|client| anteroom.keep(left(client, client << 12, 4)));
        let range = |client: u64| AddressRange { address: client << 12, bytes: 0x1000 };
        assert!(anteroom.take(1, range(1)).is_none());
        assert!(anteroom.take(2, range(2)).is_some());
        assert_eq!(anteroom.forget(3).map(|left| left.client), Some(3));
        assert!(!anteroom.clear(), "nothing is left");
    }
}
