//! What passes: which segment comes next, and which go for it.
//!
//! The bus is to have something to do all the time, and a session never waits for it here. So each step does what can be done now: it
//! ends a look, brings a segment into memory that is spare, or looks at those that are to go.

use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use torpor_proto::error::CudaError;

/// How much may be under way at once, as in a swap-in.
const UNDER_WAY_BYTES: u64 = 32 << 20;

/// Between two looks for room that is nobody's.
const ASK_PERIOD: Duration = Duration::from_millis(2);

/// A segment that passes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passing {
    pub(super) bytes: u64,
    pub(super) is_here: bool,
    /// It has come, and nothing has used it since.
    pub(super) is_new: bool,
    /// How often it was used.
    pub(super) uses: u64,
    /// The epoch of its last use, if there was one.
    pub(super) used: Option<u64>,
}

impl Passing {
    pub(super) fn new(bytes: u64, is_here: bool) -> Self {
        Self { bytes, is_here, is_new: false, uses: 0, used: None }
    }
}

/// What decides whether something can be done: how much has arrived, is done, was used and is spare, and whether there is a look.
pub(super) type Known = (u64, u64, usize, u64, bool);

/// Uses after which another segment may be next.
const USES: usize = 8;

impl Session {
    /// Does what can be done before anybody asks for it. `commands_follow`: the program posts one after the other.
    pub(crate) fn keep_passing(&mut self, commands_follow: bool) -> Result<(), Halt> {
        let Some(lean) = &mut self.residency.lean else { return Ok(()) };
        lean.epochs.look(&self.streams.fences);
        let looks = lean.look.as_ref().is_some_and(|look| !look.is_over(&self.streams.fences));
        let (arrived, done) = (self.arrivals.arrived(), lean.epochs.done());
        let known = (arrived, done, lean.course.len() / USES, lean.spare_bytes, looks);
        // Who waits for this client's turn does not wait for what it may need later.
        let is_in_the_way = !commands_follow && self.is_wanted();
        let Some(lean) = &mut self.residency.lean else { return Ok(()) };
        if lean.settled == Some(known) || lean.is_refused || is_in_the_way {
            return Ok(());
        }
        match self.pass(None) {
            Ok(true) => Ok(()),
            Ok(false) => {
                if let Some(lean) = &mut self.residency.lean {
                    lean.settled = Some(known);
                }
                Ok(())
            }
            Err(halt) if self.is_refusal(halt) => {
                if let Some(lean) = &mut self.residency.lean {
                    lean.is_refused = true;
                }
                Ok(())
            }
            Err(halt) => Err(halt),
        }
    }

    /// One step, for a segment that is named, or for the next one. False if there is nothing to do now.
    pub(super) fn pass(&mut self, named: Option<u64>) -> Result<bool, Halt> {
        if self.finish_look() {
            return Ok(true);
        }
        let arrived = self.arrivals.arrived();
        let Some(lean) = &mut self.residency.lean else { return Ok(false) };
        lean.epochs.look(&self.streams.fences);
        while lean.under_way.front().is_some_and(|&(group, _)| group <= arrived) {
            lean.under_way.pop_front();
        }
        if lean.look.is_none() && lean.passing.values().all(|passing| passing.is_here) {
            self.become_whole();
            return Ok(true);
        }
        let away = |start: &u64| lean.passing.get(start).is_some_and(|passing| !passing.is_here);
        let Some(next) = named.or_else(|| lean.course.ahead().find(away)) else { return Ok(false) };
        let bytes = lean.passing.get(&next).ok_or(CudaError::UNKNOWN)?.bytes;
        let under_way: u64 = lean.under_way.iter().map(|&(_, bytes)| bytes).sum();
        if lean.spare_bytes >= bytes && (named.is_some() || under_way < UNDER_WAY_BYTES) {
            self.bring_passing(next, bytes)?;
            return Ok(true);
        }
        if lean.look.is_some() {
            return Ok(false);
        }
        // Room for the one behind it, too: looking takes as long as one is on its way.
        let behind = lean.course.ahead().find(|start| *start != next && away(start));
        let behind_bytes = behind.and_then(|start| lean.passing.get(&start)).map_or(0, |behind| behind.bytes);
        let short_bytes = (bytes + behind_bytes).saturating_sub(lean.spare_bytes);
        if short_bytes == 0 {
            return Ok(false);
        }
        let asks = lean.asked.elapsed() >= ASK_PERIOD;
        if asks {
            lean.asked = Instant::now();
        }
        if asks
            && !self.shared.turns.is_contended()
            && self.shared.memory.reserve_free(self.link.client, short_bytes)
        {
            lean.spare_bytes += short_bytes;
            return Ok(true);
        }
        self.look_at_victims(short_bytes, (next, named.is_some()))
    }

    /// Looks at those that are used last of all and that the GPU has done with, if that is later than the one that is to come, or if that
    /// has to come.
    fn look_at_victims(&mut self, short_bytes: u64, (next, is_named): (u64, bool)) -> Result<bool, Halt> {
        let Some(lean) = &mut self.residency.lean else { return Ok(false) };
        let distances = lean.course.distances();
        let distance = |start: &u64| distances.get(start).copied().unwrap_or(usize::MAX);
        let sooner = (!is_named).then(|| distance(&next));
        let goes = |start: &u64, passing: &Passing| {
            let is_later = sooner.is_none_or(|sooner| distance(start) > sooner);
            passing.is_here && is_later && !lean.named.contains(start)
        };
        let mut victims: Vec<_> =
            lean.passing.iter().filter(|(start, passing)| goes(start, passing)).collect();
        victims.sort_by_key(|(start, _)| std::cmp::Reverse(distance(start)));
        let current = lean.epochs.current();
        let is_posted = victims.first().is_some_and(|(_, passing)| passing.used == Some(current));
        let (arrived, space, epochs) = (self.arrivals.arrived(), &self.space, &lean.epochs);
        let is_done = |start: u64, passing: &Passing| {
            passing.used.is_none_or(|epoch| epochs.is_done(epoch)) && space.arrival_of(start) <= arrived
        };
        let (mut chosen, mut bytes) = (Vec::new(), 0);
        for (&start, passing) in victims.into_iter().filter(|(start, passing)| is_done(**start, passing)) {
            if bytes < short_bytes {
                chosen.push((start, passing.uses));
                bytes += passing.bytes;
            }
        }
        // Else its fence would come behind what is posted next.
        if is_posted {
            self.end_epoch()?;
        }
        if chosen.is_empty() {
            return Ok(false);
        }
        self.begin_look(chosen)?;
        Ok(true)
    }

    /// What is posted from now on is no use of what was used before.
    pub(super) fn end_epoch(&mut self) -> Result<(), Halt> {
        let fences = self.streams.fence_clients()?;
        if let Some(lean) = &mut self.residency.lean {
            lean.epochs.end(fences);
        }
        Ok(())
    }

    fn bring_passing(&mut self, start: u64, bytes: u64) -> Result<(), Halt> {
        self.bring_into_spare(start, bytes)?;
        let group = self.arrivals.last();
        if let Some((_, segment)) = self.space.segment_of_mut(start) {
            segment.arrival = group;
        }
        if let Some(lean) = &mut self.residency.lean
            && let Some(passing) = lean.passing.get_mut(&start)
        {
            (passing.is_here, passing.is_new) = (true, true);
        }
        Ok(())
    }

    /// Brings a segment, in a group of its own.
    pub(super) fn bring_into_spare(&mut self, start: u64, bytes: u64) -> Result<(), Halt> {
        self.streams.change_setup()?;
        let Some(lean) = &mut self.residency.lean else { return Ok(()) };
        lean.spare_bytes = lean.spare_bytes.checked_sub(bytes).ok_or(CudaError::OUT_OF_MEMORY)?;
        lean.brought += 1;
        lean.brought_bytes += bytes;
        self.bring(start, bytes, true)?;
        self.link.usage.memory_bytes.fetch_add(bytes, Ordering::Relaxed);
        let group = self.arrivals.last();
        if let Some(lean) = &mut self.residency.lean {
            lean.under_way.push_back((group, bytes));
        }
        Ok(())
    }
}
