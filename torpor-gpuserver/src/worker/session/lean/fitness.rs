//! Fitness: whether a client gets on with a part of its memory, and with which.
//!
//! A segment may *pass* if work reaches it by its address alone: no memory leads to it, and it leads nowhere. It has been what the
//! host store has at each snapshot so far. Everything else *stays*: what changes, what leads somewhere, and what is led to. So what a kernel
//! could find without being given it is there whatever comes and goes.
//!
//! What changes could come to lead to what passes, which is noticed at the next snapshot alone: a client of which that was seen
//! once is not fit.

use crate::policy::lean::{Fit, least_bytes};
use crate::worker::gpu::host_store::Content;
use crate::worker::memory::segment::ClientSegment;
use crate::worker::session::Session;
use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

/// The longest segment that passes: one that takes longer on its way than it takes to make room for it only comes too late.
const MOST_BYTES: u64 = 32 << 20;

/// How often the client's work was looked at that is known to change nothing else.
const SNAPSHOTS: u32 = 2;

/// For how many turns a client comes as a whole that turned out not to be fit, the first time...
const FIRST_REST: u32 = 8;
/// ...and at most.
const LONGEST_REST: u32 = 1024;

/// Between two lines of the debug log about it.
const TELL_PERIOD: Duration = Duration::from_secs(1);

/// How long a client that was not fit is not tried again.
#[derive(Debug, Default)]
pub(crate) struct Unfit {
    turns: u32,
    next: u32,
    /// When people were last told what it could do with.
    told: Cell<Option<Instant>>,
}

impl Unfit {
    /// It was not.
    pub(super) fn begin(&mut self) {
        self.next = (2 * self.next).clamp(FIRST_REST, LONGEST_REST);
        self.turns = self.next;
    }

    /// It has had a turn as a whole.
    pub(crate) fn note_turn(&mut self) {
        self.turns = self.turns.saturating_sub(1);
    }

    fn is_over(&self) -> bool {
        self.turns == 0
    }

    /// Whether people have not been told for a while what it could do with.
    pub(super) fn is_to_be_told(&self) -> bool {
        let is_due = self.told.get().is_none_or(|told| told.elapsed() >= TELL_PERIOD);
        if is_due {
            self.told.set(Some(Instant::now()));
        }
        is_due
    }
}

/// What of a client may pass.
#[derive(Debug)]
pub(super) struct Fitness {
    /// Segments with their lengths.
    pub(super) passing: BTreeMap<u64, u64>,
    /// As the policy wants to know it.
    pub(super) fit: Fit,
}

impl Session {
    /// What the client could do with, if it could do with less than everything.
    pub(super) fn fitness(&self) -> Option<Fitness> {
        let (residency, tuning) = (&self.residency, &self.shared.tuning);
        let may_be = tuning.lean
            && tuning.swap.is_pipelined()
            && !tuning.enclosed
            && residency.snapshots >= SNAPSHOTS
            && residency.is_surveyed
            && residency.unfit.is_over();
        // Where pointers are hidden, everything is needed; and what has just moved, or does again what it did, comes as it was.
        let hides = residency.whole
            || residency.packs_addresses
            || residency.shares
            || residency.drops_writes()
            || !self.arrays.is_empty();
        let is_moving = residency.former.is_some() || self.images.has_stale || self.replay.is_some();
        let is_apart = self.link.gate.is_rank() || self.link.trial.is_on();
        if !may_be || hides || is_moving || is_apart {
            return None;
        }
        let passing = self.passing_segments()?;
        let passing_bytes: u64 = passing.values().sum();
        let largest_bytes = passing.values().copied().max()?;
        let staying_bytes = self.space.allocated_bytes() - passing_bytes;
        let least_bytes = least_bytes(staying_bytes, passing_bytes, largest_bytes);
        Some(Fitness { passing, fit: Fit { least_bytes, held_bytes: self.space.resident_bytes() } })
    }

    /// `None` if the client has something that others share or that it maps itself, or if what changes leads to what does not.
    fn passing_segments(&self) -> Option<BTreeMap<u64, u64>> {
        let (mut passing, mut led_to, mut led_to_by_chance) =
            (BTreeMap::new(), HashSet::new(), HashSet::new());
        for (start, segment) in self.space.segments() {
            if segment.shared.is_some() || segment.views.is_some() {
                return None;
            }
            let is_allocation = self.space.is_allocation(start);
            let is_written = self.residency.written.contains(&start);
            if is_allocation && !is_written && segment.bytes <= MOST_BYTES && is_constant(segment) {
                passing.insert(start, segment.bytes);
            }
            for chunk in &segment.chunks {
                let (Content::Stored { pointers, .. } | Content::Unsaved { pointers }) = &chunk.content
                else {
                    continue;
                };
                let targets = pointers.iter().filter_map(|&pointer| Some(self.space.resolve(pointer)?.0));
                if chunk.is_fleeting { &mut led_to_by_chance } else { &mut led_to }.extend(targets);
            }
        }
        passing.retain(|start, _| !led_to.contains(start));
        led_to_by_chance.iter().all(|start| !passing.contains_key(start)).then_some(passing)
    }
}

/// Whether a segment has never changed while its client worked, and leads nowhere.
fn is_constant(segment: &ClientSegment) -> bool {
    segment.chunks.iter().all(|chunk| match &chunk.content {
        Content::Zero => !chunk.is_fleeting,
        Content::Stored { pointers, .. } => !chunk.is_fleeting && pointers.is_empty(),
        Content::Unsaved { .. } => false,
    })
}
