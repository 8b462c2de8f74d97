//! The anteroom: what clients had page-locked that went on at another GPU, as it was, for when they come back; and what those had that
//! are gone, until it is given back.
//!
//! Giving page-locked memory back waits for the whole GPU ([`aside`](crate::worker::gpu::aside)), and locking it anew keeps the
//! driver from everybody else for milliseconds. A client that moves to and fro needs neither. What is kept counts as
//! page-locked memory of its function here, and goes as soon as that is in anybody's way: its share of the budget, or its addresses.

use crate::worker::gpu::aside::Aside;
use crate::worker::sync::lock;
use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use torpor_proto::layout::AddressRange;

/// Of the page-locked memory that all clients may have here, the part that those may keep that are elsewhere.
const KEPT_PART: u64 = 8;

/// Page-locked memory of a client, as its sessions know it.
pub(crate) trait Leavable: Any + fmt::Debug + Send {
    /// It counts as nobody's page-locked memory any more: it is about to be given back, and who needs the room need not wait for
    /// the GPU.
    fn give_up_shares(&mut self);
}

/// What a client has left.
#[derive(Debug)]
pub(crate) struct Left {
    /// Whose it is.
    pub(crate) client: u64,
    /// Where it is mapped.
    pub(crate) range: AddressRange,
    /// How much of it is page-locked.
    pub(crate) locked_bytes: u64,
    /// It.
    pub(crate) host: Box<dyn Leavable>,
}

#[derive(Debug, Default)]
struct Rooms {
    /// The longest away first.
    kept: VecDeque<Left>,
    /// Addresses that are being given back, on the GPU and of the host.
    departing: Vec<AddressRange>,
}

impl Rooms {
    /// One of each is free: of a client that leaves more than is kept, the session and the thread that gives it back have one each.
    fn free(&mut self, ranges: &[AddressRange]) {
        for range in ranges {
            if let Some(index) = self.departing.iter().position(|departing| departing == range) {
                self.departing.swap_remove(index);
            }
        }
    }
}

/// What is kept, and what is being given back.
#[derive(Debug)]
pub(crate) struct Anteroom {
    limit_bytes: u64,
    /// Where it is given back.
    aside: Arc<Aside>,
    rooms: Mutex<Rooms>,
}

impl Anteroom {
    /// Beside clients that may have so much page-locked memory.
    pub(crate) fn new(pinned_limit_bytes: u64, aside: &Arc<Aside>) -> Arc<Self> {
        let (limit_bytes, aside) = (pinned_limit_bytes / KEPT_PART, aside.clone());
        Arc::new(Self { limit_bytes, aside, rooms: Mutex::default() })
    }

    /// Who comes to one of these addresses waits from now on.
    pub(crate) fn depart(&self, ranges: [AddressRange; 2]) {
        self.rooms().departing.extend(ranges);
    }

    /// They are free.
    pub(crate) fn departed(&self, ranges: [AddressRange; 2]) {
        self.rooms().free(&ranges);
    }

    /// Whether any of these addresses is still being given back.
    pub(crate) fn is_departing(&self, ranges: [AddressRange; 2]) -> bool {
        let departing = &self.rooms().departing;
        departing.iter().any(|departing| ranges.iter().any(|range| departing.overlaps(*range)))
    }

    /// Keeps what a client has left, as long as there is room.
    pub(crate) fn keep(self: &Arc<Self>, left: Left) {
        let mut rooms = self.rooms();
        rooms.kept.push_back(left);
        let bytes: u64 = rooms.kept.iter().map(|left| left.locked_bytes).sum();
        let mut excess = bytes.saturating_sub(self.limit_bytes);
        let is_excess = |left: &Left| {
            let goes = excess > 0;
            excess = excess.saturating_sub(left.locked_bytes);
            goes
        };
        self.give_back(rooms, is_excess);
    }

    /// Somebody comes to these addresses: what others left there goes.
    pub(crate) fn make_way(self: &Arc<Self>, client: u64, range: AddressRange) {
        self.give_back(self.rooms(), |left| left.client != client && left.range.overlaps(range));
    }

    /// What a client left that comes back to these addresses.
    pub(crate) fn take(&self, client: u64, range: AddressRange) -> Option<Left> {
        let kept = &mut self.rooms().kept;
        let index = kept.iter().position(|left| left.client == client && left.range.overlaps(range))?;
        kept.remove(index)
    }

    /// A client will not come back: what it left goes.
    pub(crate) fn forget(self: &Arc<Self>, client: u64) {
        self.give_back(self.rooms(), |left| left.client == client);
    }

    /// What a client had goes that will not come back.
    pub(crate) fn let_go(self: &Arc<Self>, left: Left) {
        let client = left.client;
        let mut rooms = self.rooms();
        rooms.kept.push_back(left);
        self.give_back(rooms, |left| left.client == client);
    }

    /// All of it goes, and counts as gone at once. False if there was nothing.
    pub(crate) fn clear(self: &Arc<Self>) -> bool {
        self.give_back(self.rooms(), |_| true)
    }

    /// Gives some of it back, aside, as that waits for the whole GPU. True if there was any.
    fn give_back(
        self: &Arc<Self>,
        mut rooms: MutexGuard<'_, Rooms>,
        which: impl FnMut(&Left) -> bool,
    ) -> bool {
        let (mut gone, stays): (VecDeque<_>, _) = rooms.kept.drain(..).partition(which);
        rooms.kept = stays;
        if gone.is_empty() {
            return false;
        }
        // No moment in which it is neither kept nor departing, so that its client finds it or waits.
        let ranges: Vec<AddressRange> = gone.iter().map(|left| left.range).collect();
        rooms.departing.extend(&ranges);
        drop(rooms);
        gone.iter_mut().for_each(|left| left.host.give_up_shares());
        let departed = Departed { anteroom: self.clone(), ranges };
        // Dropped in this order.
        self.aside.give_back((gone, departed));
        true
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        lock(&self.rooms)
    }
}

/// Marks addresses that are free once it is dropped.
struct Departed {
    anteroom: Arc<Anteroom>,
    ranges: Vec<AddressRange>,
}

impl Drop for Departed {
    fn drop(&mut self) {
        self.anteroom.rooms().free(&self.ranges);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Tells whether it counts, and waits when it is given back.
    #[derive(Debug)]
    struct Pages {
        counts: Sender<()>,
        may_go: Receiver<()>,
    }

    impl Leavable for Pages {
        fn give_up_shares(&mut self) {
            // Not every test asks.
            let _ = self.counts.send(());
        }
    }

    impl Drop for Pages {
        fn drop(&mut self) {
            let _ = self.may_go.recv();
        }
    }

    fn range(client: u64) -> AddressRange {
        AddressRange { address: client << 12, bytes: 0x1000 }
    }

    /// What a client has left, what says that it does not count any more, and what lets it be given back.
    fn left(client: u64) -> (Left, Receiver<()>, Sender<()>) {
        let ((counts, told), (go, may_go)) = (channel(), channel());
        let host = Box::new(Pages { counts, may_go });
        (Left { client, range: range(client), locked_bytes: 4, host }, told, go)
    }

    fn until_free(anteroom: &Anteroom, client: u64) {
        while anteroom.is_departing([range(client); 2]) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn who_comes_back_finds_what_it_left_and_others_nothing() {
        let anteroom = Anteroom::new(80, &Aside::new(|_| None));
        let (first, _told, go_first) = left(1);
        let (second, _told, go) = left(2);
        anteroom.keep(first);
        anteroom.keep(second);
        // Taken, it goes with this test's own thread.
        drop(go_first);
        assert_eq!(anteroom.take(1, range(1)).map(|left| left.client), Some(1));
        assert!(anteroom.take(1, range(1)).is_none(), "once");
        anteroom.make_way(2, range(2));
        assert!(!anteroom.is_departing([range(2); 2]), "its own");
        anteroom.make_way(3, range(2));
        assert!(anteroom.is_departing([range(2); 2]), "until it is given back");
        assert!(anteroom.take(2, range(2)).is_none(), "its addresses were wanted");
        drop(go);
        until_free(&anteroom, 2);
    }

    #[test]
    fn the_longest_away_makes_room() {
        let anteroom = Anteroom::new(80, &Aside::new(|_| None));
        let lefts: Vec<_> = (1..=3).map(left).collect();
        for (left, _told, _go) in lefts {
            anteroom.keep(left);
        }
        until_free(&anteroom, 1);
        assert!(anteroom.take(1, range(1)).is_none());
        assert!(anteroom.take(2, range(2)).is_some());
        anteroom.forget(3);
        until_free(&anteroom, 3);
        let (left, _told, go) = left(4);
        anteroom.let_go(left);
        assert!(anteroom.is_departing([range(4); 2]) && anteroom.take(4, range(4)).is_none());
        drop(go);
        until_free(&anteroom, 4);
        assert!(!anteroom.clear(), "nothing is left");
    }

    #[test]
    fn what_goes_counts_no_more_and_is_in_the_way_until_it_is_gone() {
        let anteroom = Anteroom::new(80, &Aside::new(|_| None));
        let (left, told, go) = left(1);
        anteroom.keep(left);
        assert!(anteroom.clear());
        told.try_recv().expect("it does not count any more");
        assert!(anteroom.take(1, range(1)).is_none() && anteroom.is_departing([range(1); 2]));
        drop(go);
        until_free(&anteroom, 1);
    }
}
