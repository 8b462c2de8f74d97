//! The anteroom: host ranges of clients that went on at another GPU, mapped and page-locked as they were, for when they come back.
//!
//! Giving page-locked memory back waits for the whole GPU, and locking it anew keeps the driver from everybody else for
//! milliseconds. A client that moves to and fro needs neither. What is kept counts as page-locked memory of its function here,
//! and goes as soon as that is in anybody's way: its share of the budget, or its addresses.

use crate::worker::memory::host_range::HostMemory;
use crate::worker::sync::lock;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use torpor_proto::layout::AddressRange;

/// Of the page-locked memory that all clients may have here, the part that those may keep that are elsewhere.
const KEPT_PART: u64 = 8;

/// Who was here, and what it left, the longest away first.
#[derive(Debug)]
pub(crate) struct Anteroom {
    limit_bytes: u64,
    kept: Mutex<VecDeque<(u64, HostMemory)>>,
}

impl Anteroom {
    /// Beside clients that may have so much page-locked memory.
    pub(crate) fn new(pinned_limit_bytes: u64) -> Self {
        Self { limit_bytes: pinned_limit_bytes / KEPT_PART, kept: Mutex::default() }
    }

    /// Keeps what a client has left, as long as there is room.
    pub(crate) fn keep(&self, client: u64, host: HostMemory) {
        let mut gone = Vec::new();
        {
            let mut kept = lock(&self.kept);
            kept.push_back((client, host));
            let mut bytes: u64 = kept.iter().map(|(_, host)| host.locked_bytes()).sum();
            while bytes > self.limit_bytes
                && let Some(longest) = kept.pop_front()
            {
                bytes -= longest.1.locked_bytes();
                gone.push(longest);
            }
        }
        // That waits for the GPU, and nobody for that.
        drop(gone);
    }

    /// What a client finds that comes with this file and these addresses. What else is kept at the addresses goes.
    pub(crate) fn take(
        &self,
        client: u64,
        file: &OwnedFd,
        range: AddressRange,
        staging_bytes: u64,
    ) -> Option<HostMemory> {
        let there = self.remove(|_, host| host.range().overlaps(range));
        let is_its_own =
            |(whose, host): &(u64, HostMemory)| *whose == client && host.is(file, range, staging_bytes);
        there.into_iter().find(is_its_own).map(|(_, host)| host)
    }

    /// A client will not come back.
    pub(crate) fn forget(&self, client: u64) {
        drop(self.remove(|whose, _| whose == client));
    }

    /// All of it goes. False if there is nothing.
    pub(crate) fn clear(&self) -> bool {
        !self.remove(|_, _| true).is_empty()
    }

    fn remove(&self, which: impl Fn(u64, &HostMemory) -> bool) -> Vec<(u64, HostMemory)> {
        let mut kept = lock(&self.kept);
        let (gone, stays) = kept.drain(..).partition(|(client, host)| which(*client, host));
        *kept = stays;
        Vec::from_iter::<VecDeque<_>>(gone)
    }
}
