//! What commands name: it is there before they are executed, or under way, and stays until they are done.

use crate::worker::memory::arrivals::EVERYTHING;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::session::lean::{Lean, Why};
use crate::worker::session::parking::Need;
use std::time::Instant;

impl Lean {
    /// The command that is being executed names this segment.
    pub(crate) fn name(&mut self, start: u64) {
        if self.passing.contains_key(&start) && !self.named.contains(&start) {
            self.named.push(start);
        }
    }

    /// One that is named and not there.
    fn named_and_away(&self) -> Option<u64> {
        let is_away = |start: &u64| self.passing.get(start).is_some_and(|passing| !passing.is_here);
        self.named.iter().copied().find(is_away)
    }

    /// Whether a segment is looked at that is named.
    fn is_looking_at_named(&self) -> bool {
        self.look.as_ref().is_some_and(|look| self.named.iter().any(|&start| look.is_at(start)))
    }

    /// Whether there is room for all that is named, whoever goes for it.
    fn can_have_named(&self) -> bool {
        let passing = self.passing.iter();
        let here = passing.clone().filter(|(_, passing)| passing.is_here).map(|(_, passing)| passing.bytes);
        let named = passing.filter(|(start, _)| self.named.contains(start)).map(|(_, passing)| passing.bytes);
        named.sum::<u64>() <= here.sum::<u64>() + self.spare_bytes
    }
}

impl Session {
    /// What a command names is there when this returns, or under way. Returns the group with which that has arrived, if the rest of
    /// what it needs has with `group`.
    ///
    /// # Errors
    /// [`Halt::Parked`] if that cannot be without all of the client's memory; as [`Self::drain`].
    pub(crate) fn bring_named(&mut self, group: u64) -> Result<u64, Halt> {
        let Some(lean) = &self.residency.lean else { return Ok(group) };
        if group == EVERYTHING || lean.is_refused {
            let why = if lean.is_refused { Why::Refused } else { Why::Everything };
            return Err(self.leave_for_turn(why));
        }
        let began = Instant::now();
        let mut since = began;
        let mut has_waited = false;
        while let Some(lean) = &self.residency.lean {
            // Nothing is written while it is read for its digest.
            if lean.is_looking_at_named() {
                if !self.finish_look() {
                    has_waited = true;
                    self.wait_a_moment(since)?;
                }
                continue;
            }
            let Some(away) = lean.named_and_away() else { break };
            if !lean.can_have_named() {
                return Err(self.leave_for_turn(Why::TooMuch));
            }
            match self.pass(Some(away)) {
                Ok(true) => since = Instant::now(),
                // The GPU has work before something can go, or looks at that.
                Ok(false) => {
                    has_waited = true;
                    self.wait_a_moment(since)?;
                }
                Err(halt) if self.is_refusal(halt) => return Err(self.leave_for_turn(Why::Refused)),
                Err(halt) => return Err(halt),
            }
        }
        if has_waited && self.is_too_slow(began) {
            return Err(self.leave_for_turn(Why::Slow));
        }
        self.use_named(group)
    }

    /// The command that is being executed goes on with all of the client's memory.
    fn leave_for_turn(&mut self, why: Why) -> Halt {
        match self.leave_lean(why) {
            Ok(()) => self.parking.park(Need::Turn),
            Err(halt) => halt,
        }
    }

    /// The command that named what is there now is about to be posted.
    fn use_named(&mut self, group: u64) -> Result<u64, Halt> {
        let is_new = |lean: &Lean| {
            let mut named = lean.named.iter().filter_map(|start| lean.passing.get(start));
            named.any(|passing| passing.is_new)
        };
        if self.residency.lean.as_deref().is_some_and(is_new) {
            self.end_epoch()?;
        }
        // It may have become whole with what was just brought.
        let Some(lean) = &mut self.residency.lean else { return Ok(group.max(self.arrivals.last())) };
        let mut group = group;
        for start in std::mem::take(&mut lean.named) {
            group = group.max(self.space.arrival_of(start));
            let Some(passing) = lean.passing.get_mut(&start) else { continue };
            (passing.is_new, passing.used) = (false, Some(lean.epochs.current()));
            passing.uses += 1;
            lean.course.note(start);
        }
        for start in std::mem::take(&mut lean.kept) {
            lean.passing.remove(&start);
            self.residency.written.insert(start);
        }
        Ok(group)
    }

    /// The program copies this from the host: what is written, and what that points to, stays from now on.
    pub(crate) fn keep_written(&mut self, to: u64, from: u64, bytes: u64) {
        let Some(lean) = &mut self.residency.lean else { return };
        let arena = self.space.arena();
        let words = self.space.host.words(from, bytes, to).into_iter().flatten();
        let pointers = words.filter(|&word| arena.contains(word, 1));
        let pointed_to = pointers.filter_map(|pointer| Some(self.space.resolve(pointer)?.0));
        let written = self.space.pieces(to, bytes).into_iter().map(|(home, _, _)| home);
        for start in written.chain(pointed_to) {
            // Also what was named before: it must not go for the rest.
            lean.name(start);
            if !lean.kept.contains(&start) {
                lean.kept.push(start);
            }
        }
    }
}
