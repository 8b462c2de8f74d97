//! A client with memory on the GPU: whether it may leave, and whether it had better not.

use crate::policy::reuse::Reuse;
use crate::policy::topology::Topology;
use crate::worker::mailbox::Link;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long nobody tries again to save memory that could not be saved.
const STUCK: Duration = Duration::from_secs(1);

/// How long a client counts as busy that has given its turn up: as long as those wait for theirs that have them one after the other.
const BUSY: Duration = Duration::from_secs(2);

/// A client, and what it has of the GPU's memory.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) link: Arc<Link>,
    pub(super) bytes: u64,
    /// How much of it stays on the GPU while the client is there: arrays that cannot leave.
    pub(super) kept_bytes: u64,
    pub(super) last_used: u64,
    pub(super) reuse: Reuse,
    /// Since when it has been idle, if it is.
    pub(super) idle_since: Instant,
    pub(super) active: bool,
    pub(super) pinned: bool,
    /// Since when its memory cannot be saved.
    pub(super) stuck: Option<Instant>,
    /// How much memory it waits for.
    pub(super) wanted_bytes: u64,
    /// It is active with a part of its memory: so much was promised to it, until it is reserved.
    pub(super) lean: Option<u64>,
}

impl Client {
    /// Without memory.
    pub(super) fn new(link: &Arc<Link>, pinned: bool) -> Self {
        Self {
            link: link.clone(),
            bytes: 0,
            kept_bytes: 0,
            last_used: 0,
            reuse: Reuse::default(),
            idle_since: Instant::now(),
            active: false,
            pinned,
            stuck: None,
            wanted_bytes: 0,
            lean: None,
        }
    }

    /// What it has when all of it has come.
    pub(super) fn needed_bytes(&self) -> u64 {
        let allocated_bytes = self.link.usage.allocated_bytes.load(Ordering::Relaxed);
        allocated_bytes.max(self.bytes.saturating_add(self.wanted_bytes))
    }

    /// What it has, or is about to take, while it is active.
    fn active_bytes(&self) -> u64 {
        match self.lean {
            Some(promised_bytes) => promised_bytes.max(self.bytes.saturating_add(self.wanted_bytes)),
            None => self.needed_bytes(),
        }
    }

    /// Whether it was active a moment ago, and may be about to go on.
    pub(super) fn is_busy(&self) -> bool {
        !self.active && self.last_used > 0 && self.idle_since.elapsed() < BUSY
    }

    /// What nobody else can have of the GPU.
    pub(super) fn staying_bytes(&self) -> u64 {
        match self.active {
            true => self.active_bytes(),
            false if self.pinned || self.is_stuck() => self.bytes,
            false => self.kept_bytes,
        }
    }

    /// What nobody else has now, whatever it is to have.
    pub(super) fn held_bytes(&self) -> u64 {
        if self.active { self.bytes } else { self.staying_bytes() }
    }

    /// What evicting it frees.
    pub(super) fn evictable_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.kept_bytes)
    }

    /// By how much its memory takes longer to come back than its work takes.
    pub(super) fn shows(&self) -> Duration {
        let way = self.needed_bytes() as f64 / Topology::default().bytes_per_second(0, 1);
        Duration::from_secs_f64(way).saturating_sub(self.link.turn_takes())
    }

    /// Whether it may be asked to leave now.
    pub(super) fn is_evictable(&self) -> bool {
        !self.active && !self.pinned && self.stuck.is_none() && self.evictable_bytes() > 0
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.is_some_and(|since| since.elapsed() < STUCK)
    }

    pub(super) fn may_leave(&self) -> bool {
        self.active && !self.pinned && self.evictable_bytes() > 0
    }
}
