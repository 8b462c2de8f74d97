//! Lean: a client that is active with a part of its memory on the GPU, through which the rest passes.
//!
//! What *stays* of it is brought when its turn begins. The rest *passes*: each segment is there before work is posted that names
//! it (`naming.rs`), and in the order in which the client has used them so far (`course.rs`) the next ones come before they are
//! named (`passing.rs`). For each that comes others go: those whose next use is farthest, once the GPU has done with them
//! (`epochs.rs`) and they are found to be what the host store has (`look.rs`). Which may pass is said in `fitness.rs`,
//! whether it is worth it in `worth.rs`, and when a client is lean in [`policy::lean`](crate::policy::lean).
//!
//! What cannot be done so ends the turn: the client comes as a whole then, and for some time.

mod course;
mod epochs;
mod fitness;
mod look;
mod naming;
mod passing;
mod worth;

pub(crate) use course::Course;
pub(crate) use fitness::Unfit;
pub(crate) use worth::Span;

use crate::policy::lean::Fit;
use crate::worker::gpu::memory::Reserved;
use crate::worker::memory::arrivals::EVERYTHING;
use crate::worker::memory::segment::{Backing, ClientSegment};
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::session::lean::epochs::Epochs;
use crate::worker::session::lean::fitness::Fitness;
use crate::worker::session::lean::look::Look;
use crate::worker::session::lean::passing::Passing;
use crate::worker::session::parking::Need;
use crate::worker::session::shortage::Room;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A turn with a part of the memory.
#[derive(Debug)]
pub(crate) struct Lean {
    course: Course,
    epochs: Epochs,
    /// What passes, by address.
    passing: BTreeMap<u64, Passing>,
    /// Reserved, and no segment's.
    spare_bytes: u64,
    /// Groups that are on their way, the oldest first, with their bytes.
    under_way: VecDeque<(u64, u64)>,
    /// What is looked at before it goes.
    look: Option<Look>,
    /// What the command names that is being executed, and of that what stays from now on.
    named: Vec<u64>,
    kept: Vec<u64>,
    /// What was known when nothing could be done ahead of time.
    settled: Option<passing::Known>,
    /// The driver or the store refused something: the next command ends this.
    is_refused: bool,
    /// When there was last a look for room that is nobody's.
    asked: Instant,
    /// What it gets done.
    span: Span,
    began: Instant,
    /// How long commands waited for what they name.
    waited: Duration,
    brought: u64,
    brought_bytes: u64,
    dropped: u64,
    changed: u64,
}

/// Why a client is lean no longer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Why {
    /// Work may reach anything.
    Everything,
    /// What a command names has no room together.
    TooMuch,
    /// It waits for its memory nearly all the time.
    Slow,
    /// Something new has no room beside the rest.
    New,
    /// The driver or the host store refused something.
    Refused,
}

impl Session {
    /// Whether it is active with a part of its memory.
    pub(crate) fn is_lean(&self) -> bool {
        self.residency.lean.is_some()
    }

    /// What the client could do with, if it could do with less than everything. People are told now and then.
    pub(super) fn fit(&self) -> Option<Fit> {
        let fit = self.fitness().map(|fitness| fitness.fit);
        if self.residency.unfit.is_to_be_told() {
            let (link, residency) = (&self.link, &self.residency);
            tracing::debug!(
                client = link.client,
                function = %link.function,
                least_bytes = fit.map(|fit| fit.least_bytes),
                held_bytes = fit.map(|fit| fit.held_bytes),
                snapshots = residency.snapshots,
                is_surveyed = residency.is_surveyed,
                unfit = ?residency.unfit,
                "could be lean"
            );
        }
        fit
    }

    /// Begins a turn with so much of the client's memory, once there is room for that.
    ///
    /// # Errors
    /// As [`Self::swap_in`].
    pub(super) fn come_lean(&mut self, promised_bytes: u64) -> Result<Room, Halt> {
        let (client, shared) = (self.link.client, self.shared.clone());
        let held_bytes = self.space.resident_bytes();
        let reserved_bytes = promised_bytes.saturating_sub(held_bytes);
        match shared.memory.reserve(client, reserved_bytes, &shared.turns) {
            Reserved::Granted => shared.memory.keep_promise(client),
            Reserved::Later => return Ok(Room::Later),
            Reserved::StepBack => return Ok(Room::StepBack),
            Reserved::Exhausted => {
                self.residency.unfit.begin();
                return Ok(Room::StepBack);
            }
        }
        let Some(fitness) = self.fitness() else {
            shared.memory.unreserve(client, reserved_bytes);
            self.residency.unfit.begin();
            return Ok(Room::StepBack);
        };
        let (missing, missing_bytes) = self.staying_and_missing(&fitness);
        if missing_bytes > reserved_bytes {
            // What may pass has the room, and nothing would ever go for what stays.
            shared.memory.unreserve(client, reserved_bytes);
            self.residency.unfit.begin();
            return Ok(Room::StepBack);
        }
        let swaps = self.link.usage.swaps.fetch_add(1, Ordering::Relaxed) + 1;
        // Until it has everything, or its work is done: see `note_caught_up`.
        self.link.ran_ahead.store(swaps, Ordering::Relaxed);
        let mut course = std::mem::take(&mut self.residency.course);
        if course.is_empty() {
            let order = self.residency.order.iter().copied();
            course = Course::expecting(order.filter(|start| fitness.passing.contains_key(start)).collect());
        }
        let passing = fitness.passing.into_iter().map(|(start, bytes)| {
            let is_here = self.space.segment_of(start).is_some_and(|(_, segment)| segment.backing.is_some());
            (start, Passing::new(bytes, is_here))
        });
        let span = self.new_span();
        self.residency.lean = Some(Box::new(Lean {
            course,
            epochs: Epochs::default(),
            passing: passing.collect(),
            spare_bytes: reserved_bytes,
            under_way: VecDeque::new(),
            look: None,
            named: Vec::new(),
            kept: Vec::new(),
            settled: None,
            is_refused: false,
            asked: Instant::now(),
            span,
            began: Instant::now(),
            waited: Duration::ZERO,
            brought: 0,
            brought_bytes: 0,
            dropped: 0,
            changed: 0,
        }));
        tracing::debug!(client, function = %self.link.function, held_bytes, reserved_bytes, "lean");
        self.bring_staying(&missing)?;
        Ok(Room::Granted)
    }

    /// What does not pass and is not there, with its length.
    fn staying_and_missing(&self, fitness: &Fitness) -> (Vec<(u64, u64)>, u64) {
        let is_missing = |start: &u64, segment: &ClientSegment| {
            segment.needs_memory() && !fitness.passing.contains_key(start)
        };
        let missing = self.space.segments().filter(|(start, segment)| is_missing(start, segment));
        let missing: Vec<_> = missing.map(|(start, segment)| (start, segment.bytes)).collect();
        let bytes = missing.iter().map(|&(_, bytes)| bytes).sum();
        (missing, bytes)
    }

    /// Brings what does not pass and is missing. What does not pass may lead to each other, so work on any of it waits for all.
    fn bring_staying(&mut self, missing: &[(u64, u64)]) -> Result<(), Halt> {
        for &(start, bytes) in missing {
            self.bring_into_spare(start, bytes)?;
        }
        let Some(lean) = &self.residency.lean else { return Ok(()) };
        if !missing.is_empty() {
            let last = self.arrivals.last();
            let staying = self.space.segments_mut().filter(|(start, _)| !lean.passing.contains_key(start));
            staying.for_each(|(_, segment)| segment.arrival = last);
        }
        Ok(())
    }

    /// Ends a turn with a part of the memory: the command that cannot go on like that, if there is one, parks for one with all.
    ///
    /// # Errors
    /// As [`Self::step_back`].
    pub(crate) fn leave_lean(&mut self, why: Why) -> Result<(), Halt> {
        tracing::debug!(client = self.link.client, function = %self.link.function, ?why, "lean no longer");
        self.residency.unfit.begin();
        self.step_back()
    }

    /// All that the client has is there, or on its way, or the command parks until it is.
    ///
    /// # Errors
    /// [`Halt::Parked`]; the driver's, and the store's.
    pub(crate) fn bring_whole(&mut self) -> Result<(), Halt> {
        if self.is_lean() {
            self.leave_lean(Why::Everything)?;
            return Err(self.parking.park(Need::Turn));
        }
        self.bring_up_to(EVERYTHING)
    }

    /// Reserves memory for something new of a client that is active with a part of its memory: nobody leaves for that. False, and
    /// the turn is over, if there is none.
    pub(crate) fn reserve_lean(&mut self, bytes: u64) -> Result<bool, Halt> {
        if let Some(lean) = &mut self.residency.lean
            && let Some(left_bytes) = lean.spare_bytes.checked_sub(bytes)
        {
            lean.spare_bytes = left_bytes;
            return Ok(true);
        }
        let is_free = self.shared.memory.reserve_free(self.link.client, bytes);
        if !is_free {
            self.leave_lean(Why::New)?;
        }
        Ok(is_free)
    }

    /// Everything is there: it is a client like any other.
    fn become_whole(&mut self) {
        self.end_lean();
        self.shared.memory.become_whole(self.link.client);
        self.residency.is_surveyed = false;
        // Kernels may run that came before.
        self.residency.is_ahead = true;
    }

    /// The turn is over, or everything is there.
    pub(crate) fn end_lean(&mut self) {
        let Some(lean) = self.residency.lean.take() else { return };
        self.shared.memory.unreserve(self.link.client, lean.spare_bytes);
        if let Some(look) = lean.look {
            self.end_look(look);
        }
        let uses = lean.course.len();
        self.residency.course = lean.course;
        self.tell_memory();
        tracing::debug!(
            client = self.link.client,
            function = %self.link.function,
            resident_bytes = self.space.resident_bytes(),
            spare_bytes = lean.spare_bytes,
            passing = lean.passing.len(),
            passing_bytes = lean.passing.values().map(|passing| passing.bytes).sum::<u64>(),
            brought = lean.brought,
            brought_bytes = lean.brought_bytes,
            dropped = lean.dropped,
            changed = lean.changed,
            uses,
            waited_us = lean.waited.as_micros(),
            took_us = lean.began.elapsed().as_micros(),
            "was lean"
        );
    }

    /// A segment is freed.
    pub(crate) fn forget_passing(&mut self, start: u64) {
        if let Some(lean) = &mut self.residency.lean {
            lean.passing.remove(&start);
            lean.named.retain(|&named| named != start);
        }
    }

    /// Takes a segment's memory away, which stays reserved.
    fn drop_segment(&mut self, start: u64) {
        let segment = self.space.segment_of_mut(start);
        let backing = segment.and_then(|(_, segment)| segment.backing.take());
        let laid_by = backing.map_or(0, Backing::lay_by);
        self.link.usage.memory_bytes.fetch_sub(laid_by, Ordering::Relaxed);
        if let Some(lean) = &mut self.residency.lean {
            lean.spare_bytes += laid_by;
            lean.dropped += 1;
        }
    }
}
