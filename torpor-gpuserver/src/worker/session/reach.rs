//! What work of a client can reach: the segments that it names, and those that pointers stored in these name, and so on.
//!
//! During a swap-in, an operation waits for everything that it could read or pass on. A kernel waits for what its
//! parameters point to, with what that points to; a copy waits for its two ends, and for all that the copied bytes
//! point to. So whatever is written meanwhile can only hold pointers to what has arrived, and pointers need to be known
//! only as they were at the last snapshot ([`Content::Stored`](crate::worker::gpu::host_store::Content::Stored)). Where pointers could be
//! hidden, an operation waits for everything: in globals of an image, in page-locked host memory, which the program writes
//! without a word and to which a parameter, a segment or copied bytes may lead, and in tensor maps, if the driver packs
//! addresses there.
//!
//! Objects that the program has mapped side by side are one unit (`memory::units`): an allocator that grows by mapping more lets one
//! tensor reach over many.
//!
//! That no pointer is missed is believed, not known. So the server hears who ran ahead of its memory when a context is lost to
//! an access of nothing, and has that function's memory brought whole from then on.

use crate::chunk::CHUNK_BYTES;
use crate::driver::{Place, Stream};
use crate::worker::memory::address_space::AddressSpace;
use crate::worker::memory::arrivals::{Arrivals, EVERYTHING};
use crate::worker::memory::units::Units;
use crate::worker::objects::pending::Pending;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::session::residency::Residency;
use crate::worker::streams::Streams;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use torpor_proto::error::CudaError;

/// Copies from the host are looked into for pointers up to this length.
const LOOKED_INTO_BYTES: u64 = 8 << 20;

/// The group with which everything has arrived that these words lead to; notes what they name.
pub(crate) fn group_of(space: &AddressSpace, residency: &mut Residency, words: &[u64]) -> u64 {
    let arena = space.arena();
    let mut group = 0;
    for &pointer in words.iter().filter(|&&word| arena.contains(word, 1)) {
        if let Some((start, _)) = space.resolve(pointer) {
            group = group.max(space.arrival_of(start));
            residency.touch(start);
        }
    }
    group
}

/// As [`group_of`], for all that a range reaches over.
fn group_of_range(space: &AddressSpace, residency: &mut Residency, address: u64, bytes: u64) -> u64 {
    let pieces = space.pieces(address, bytes);
    pieces.into_iter().fold(0, |group, (home, _, _)| {
        residency.touch(home);
        group.max(space.arrival_of(home))
    })
}

/// The group for a kernel with these parameters; notes what they name. `hides_pointers`: it may find more than they lead to.
pub(crate) fn group_of_launch(
    space: &AddressSpace,
    residency: &mut Residency,
    parameters: &[u64],
    hides_pointers: bool,
) -> u64 {
    let named = group_of(space, residency, parameters);
    let hidden = hides_pointers || parameters.iter().any(|&word| space.host.is_locked(word));
    if hidden { EVERYTHING } else { named }
}

/// A stream to post to, behind a group of arriving memory. A replay of a graph posts nothing, so it waits for nothing.
#[inline]
pub(crate) fn enter<'a>(
    streams: &'a mut Streams,
    arrivals: &Arrivals,
    stream: u32,
    group: u64,
) -> Result<&'a Stream, CudaError> {
    match arrivals.event(group) {
        Some((group, event)) if streams.capture.is_none() => streams.enter_behind(stream, group, event),
        _ => streams.enter(stream),
    }
}

impl Session {
    /// Whether it matters what work can reach: memory is on its way, or passes, or its order is being learned.
    #[inline]
    pub(crate) fn observes_reach(&self) -> bool {
        self.is_arriving() || self.residency.touched.is_some() || self.is_lean()
    }

    /// Whether memory is on its way.
    pub(crate) fn is_arriving(&self) -> bool {
        !self.arrivals.is_empty() || self.is_swapping_in()
    }

    /// A kernel is about to be launched that waits for a group alone.
    #[inline]
    pub(crate) fn note_running_ahead(&mut self, group: u64) {
        if group != EVERYTHING && self.is_arriving() {
            self.residency.is_ahead = true;
            self.link.ran_ahead.store(self.link.usage.swaps.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Once everything has arrived, kernels that did not wait for that are known to be well when they have ended.
    pub(crate) fn note_caught_up(&mut self) -> Result<(), Halt> {
        if !self.is_arriving()
            && let Some(since) = self.residency.coming_since.take()
        {
            let took_us = since.elapsed().as_micros();
            tracing::debug!(client = self.link.client, function = %self.link.function, took_us, "all has come");
        }
        if self.residency.is_ahead && !self.is_arriving() {
            self.residency.is_ahead = false;
            if self.is_lean() {
                // There is always something that it does not have.
                return Ok(());
            }
            let fences = self.streams.fence_all()?;
            self.pending.push(Pending::CaughtUp(self.link.clone(), fences));
        }
        Ok(())
    }

    /// All kernels have ended.
    pub(crate) fn note_done(&mut self) {
        self.residency.is_ahead = false;
        self.link.ran_ahead.store(0, Ordering::Relaxed);
    }

    /// The group for work that names these addresses.
    ///
    /// # Errors
    /// As [`Self::bring_named`].
    pub(crate) fn group_of(&mut self, addresses: &[u64]) -> Result<u64, Halt> {
        if !self.observes_reach() {
            return Ok(0);
        }
        let group = group_of(&self.space, &mut self.residency, addresses);
        self.bring_named(group)
    }

    /// The group for work on these ranges of addresses, each with its length.
    ///
    /// # Errors
    /// As [`Self::bring_named`].
    pub(crate) fn group_of_ranges(&mut self, ranges: &[(u64, u64)]) -> Result<u64, Halt> {
        if !self.observes_reach() {
            return Ok(0);
        }
        let groups =
            ranges.iter().map(|&(at, bytes)| group_of_range(&self.space, &mut self.residency, at, bytes));
        let group = groups.max().unwrap_or(0);
        self.bring_named(group)
    }

    /// The group for a word that the program has stored at an address, which may be a pointer.
    ///
    /// # Errors
    /// As [`Self::bring_named`].
    pub(crate) fn group_of_word(&mut self, word: (u64, u64), value: u64) -> Result<u64, Halt> {
        let may_lead_on = self.space.arena().contains(value, 1) || self.space.host.owns(value);
        // Words are counters and flags: one that could be a pointer is rare, and not followed.
        if may_lead_on && self.observes_reach() {
            return self.bring_named(EVERYTHING);
        }
        self.group_of_ranges(&[word])
    }

    /// The group for a copy; notes what else follows from it.
    ///
    /// # Errors
    /// The context's; as [`Self::bring_named`].
    pub(crate) fn group_of_copy(
        &mut self,
        to: (Place, u64),
        from: (Place, u64),
        bytes: u64,
    ) -> Result<u64, Halt> {
        match (to.0, from.0) {
            (Place::Host, Place::Device) => self.residency.answered = true,
            (Place::Device, Place::Host) if self.residency.drops_writes() => {
                self.note_copied_into(to.1, bytes)
            }
            _ => {}
        }
        if !self.observes_reach() {
            return Ok(0);
        }
        let group = self.group_of_ranges(&[(to.1, bytes), (from.1, bytes)])?;
        if (to.0, from.0) != (Place::Device, Place::Host) {
            return Ok(group);
        }
        // Looking into megabytes takes longer than asking the driver whether that is still needed.
        self.arrivals.look()?;
        if !self.is_arriving() && !self.is_lean() {
            return Ok(group);
        }
        let group = match self.space.host.words(from.1, bytes.min(LOOKED_INTO_BYTES + 1), to.1) {
            Some(words) if bytes <= LOOKED_INTO_BYTES => group.max(self.space.reached_by(words)),
            _ => EVERYTHING,
        };
        if group != EVERYTHING {
            self.keep_written(to.1, from.1, bytes);
        }
        self.bring_named(group)
    }

    /// The host writes into these chunks, which is not lost with what kernels write.
    pub(crate) fn note_copied_into(&mut self, address: u64, bytes: u64) {
        for (home, offset, bytes) in self.space.pieces(address, bytes) {
            let Some((_, segment)) = self.space.segment_of_mut(home) else { continue };
            let (first, last) = (offset / CHUNK_BYTES, (offset + bytes - 1) / CHUNK_BYTES);
            segment.chunks.iter_mut().skip(first as usize).take((last - first + 1) as usize).for_each(
                |chunk| {
                    chunk.copied_into = true;
                },
            );
        }
    }

    /// A stream to post to, behind a group of arriving memory.
    pub(crate) fn enter(&mut self, stream: u32, group: u64) -> Result<&Stream, Halt> {
        self.bring_up_to(group)?;
        Ok(enter(&mut self.streams, &self.arrivals, stream, group)?)
    }

    /// The stream of the arriving memory, if an upload may take its place there among the copies: a copy engine serves
    /// one stream as long as it has work (H200, docs/benchmarks.md), so in any other it would wait for everything.
    pub(crate) fn enter_arriving(&mut self, stream: u32, group: u64) -> Result<Option<&Stream>, Halt> {
        if !self.is_arriving() {
            return Ok(None);
        }
        self.streams.peek(stream)?;
        self.bring_up_to(group)?;
        Ok(self.streams.enter_setup_for_all())
    }
}

impl AddressSpace {
    /// The group with which everything has arrived that these words could lead to, if they are parameters or memory.
    fn reached_by(&self, words: impl Iterator<Item = u64>) -> u64 {
        let arena = self.arena();
        let group = |word: u64| match self.host.owns(word) {
            true => EVERYTHING,
            false if arena.contains(word, 1) => self.arrival_of(word),
            false => 0,
        };
        words.map(group).max().unwrap_or(0)
    }

    /// The group with which the segment at an address has arrived, and all that it leads to. 0 if there is none.
    #[inline]
    pub(crate) fn arrival_of(&self, address: u64) -> u64 {
        let home = self.resolve(address).map(|(home, _)| home);
        home.and_then(|home| self.segment_of(home)).map_or(0, |(_, segment)| segment.arrival)
    }

    /// Makes each segment's arrival that of everything it leads to. `own` has the group of each segment that is on its way.
    pub(crate) fn spread_arrivals(&mut self, own: &HashMap<u64, u64>) {
        let units = Units::of(self);
        let (mut groups, mut edges) = (HashMap::<u64, u64>::new(), HashMap::<u64, Vec<u64>>::new());
        let last = own.values().copied().max().unwrap_or(0);
        for (home, segment) in self.segments() {
            let unit = units.of_segment(home);
            let group = groups.entry(unit).or_default();
            let leads_to_host = segment.pointers().any(|pointer| self.host.owns(pointer));
            let its = if leads_to_host { last } else { own.get(&home).copied().unwrap_or(0) };
            *group = its.max(*group);
            let targets = segment.pointers().filter_map(|pointer| Some(self.resolve(pointer)?.0));
            let targets: Vec<u64> = targets.map(|home| units.of_segment(home)).collect();
            if !targets.is_empty() {
                edges.entry(unit).or_default().extend(targets);
            }
        }
        let arrival = |unit: u64| {
            let (mut seen, mut open, mut latest) = (HashSet::from([unit]), vec![unit], 0);
            while let Some(unit) = open.pop() {
                latest = latest.max(groups.get(&unit).copied().unwrap_or(0));
                open.extend(edges.get(&unit).into_iter().flatten().filter(|&&target| seen.insert(target)));
            }
            latest
        };
        let arrivals: HashMap<u64, u64> = groups.keys().map(|&unit| (unit, arrival(unit))).collect();
        for (home, segment) in self.segments_mut() {
            let arrival = arrivals.get(&units.of_segment(home)).copied().unwrap_or(0);
            segment.arrival = segment.arrival.max(arrival);
        }
    }
}
