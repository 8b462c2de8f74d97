//! Swap-in: bringing a client's memory to the GPU while its first kernels already run.
//!
//! Segments are mapped one after the other, in the order in which the last request needed them, and their chunks copied
//! from the host store behind each other in one stream. An event closes each group of segments; work that can reach a
//! segment waits for its group (`reach.rs`). All groups are planned at once, but the session maps only a little ahead of the
//! copies and executes commands in between: mapping costs about 40 µs a segment, which the first kernels need not wait
//! for. A command that needs what is not mapped yet has it mapped first.

use crate::worker::memory::arrivals::EVERYTHING;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::session::missing::Missing;
use crate::worker::session::pace::Pace;
use crate::worker::session::pull::Pull;
use crate::worker::session::shortage::Room;
use crate::worker::work_time::micros;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use torpor_proto::control::event::SwappedIn;
use torpor_proto::control::worker::happened;

/// How much may be under way at once: enough to keep the bus busy while the session does something else, and little enough
/// for the client's own copies not to queue behind all of its memory.
const UNDER_WAY_BYTES: u64 = 32 << 20;

/// A segment that is to be brought.
#[derive(Clone, Copy, Debug)]
struct Incoming {
    address: u64,
    bytes: u64,
    group: u64,
    /// It is the last one of its group.
    closes: bool,
}

/// A swap-in that is not posted whole yet.
#[derive(Debug)]
pub(crate) struct SwapIn {
    incoming: VecDeque<Incoming>,
    /// Reserved for what is left.
    reserved_bytes: u64,
    /// Groups that are on their way, the oldest first, with their bytes.
    under_way: VecDeque<(u64, u64)>,
    bytes: u64,
    segments: usize,
    copied_bytes: u64,
    copies: usize,
    /// What of it can be taken from where the client was before.
    pub(super) pull: Option<Pull>,
    /// What was taken from there.
    pub(super) peer_bytes: u64,
    began: Instant,
    reserve_time: Duration,
    mapping_time: Duration,
    pace: Pace,
}

impl Session {
    /// Begins to bring what is not there, once there is room for that. `missing`: what it is, as the last try found. `short`: since when
    /// others are to make room.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` if there is no room, `CUDA_ERROR_OPERATING_SYSTEM` if the host store does not have what was
    /// given to it, or the context's.
    pub(crate) fn swap_in(
        &mut self,
        missing: &mut Option<Missing>,
        short: Option<Instant>,
    ) -> Result<Room, Halt> {
        let missing = match missing {
            Some(missing) => missing,
            None => {
                let entered = self.enter_shared()?;
                if entered != Room::Granted {
                    return Ok(entered);
                }
                missing.insert(self.missing())
            }
        };
        let bytes: u64 = missing.iter().map(|&(_, bytes)| bytes).sum();
        let (arrays_come, array_bytes) = (self.arrays.are_to_come(), self.away_bytes());
        if bytes == 0 && !arrays_come {
            let usage = &self.link.usage;
            let counter = if self.residency.has_brought_shared { &usage.swaps } else { &usage.hits };
            counter.fetch_add(1, Ordering::Relaxed);
            self.residency.has_brought_shared = false;
            return Ok(Room::Granted);
        }
        let asked = short.unwrap_or_else(Instant::now);
        let reserved = self.try_reserve(bytes + array_bytes)?;
        if reserved != Room::Granted {
            return Ok(reserved);
        }
        self.link.usage.swaps.fetch_add(1, Ordering::Relaxed);
        self.residency.has_brought_shared = false;
        let rooms = self.rooms_for_arrays();
        if bytes == 0 {
            return self.bring_arrays(rooms).map(|()| Room::Granted);
        }
        // Only now: those that left for this one may have needed the slots. Who finds its memory on another GPU may need none.
        if self.residency.former.is_none()
            && let Err(error) = self.renew_lease()
        {
            self.shared.memory.unreserve(self.link.client, bytes);
            return Err(self.store_failed(&error));
        }
        let began = Instant::now();
        let incoming = self.plan(missing);
        let groups = incoming.iter().map(|one| (one.address, one.group)).collect();
        self.space.spread_arrivals(&groups);
        let pull = self.begin_pull(incoming.iter().map(|one| one.address));
        self.residency.swap_in = Some(SwapIn {
            segments: incoming.len(),
            incoming,
            reserved_bytes: bytes,
            under_way: VecDeque::new(),
            bytes,
            copied_bytes: 0,
            copies: 0,
            pull,
            peer_bytes: 0,
            began,
            reserve_time: began.duration_since(asked),
            mapping_time: Duration::ZERO,
            pace: Pace::new(began),
        });
        self.residency.touched = Some(Vec::new());
        self.residency.coming_since = Some(began);
        // Shared memory may lead to the rest, and does not say so.
        let is_whole = self.residency.whole || self.space.is_shared() || arrays_come;
        if self.shared.tuning.swap.is_pipelined() && !is_whole {
            return self.bring_next().map(|()| Room::Granted);
        }
        self.bring_up_to(EVERYTHING)?;
        let fence = self.streams.fence_setup()?;
        self.wait_for(Vec::from_iter(fence))?;
        self.arrivals.complete();
        if arrays_come {
            self.bring_arrays(rooms)?;
        }
        Ok(Room::Granted)
    }

    /// Which segment comes in which group.
    fn plan(&self, missing: &[(u64, u64)]) -> VecDeque<Incoming> {
        let group_bytes = self.shared.tuning.swap.group_bytes(self.shared.tuning.group_bytes);
        let (mut group, mut in_group) = (self.arrivals.last() + 1, 0);
        let last = missing.len() - 1;
        let plan = missing.iter().enumerate().map(|(at, &(address, bytes))| {
            in_group += bytes;
            let closes = in_group >= group_bytes || at == last;
            let incoming = Incoming { address, bytes, group, closes };
            if closes {
                group += 1;
                in_group = 0;
            }
            incoming
        });
        plan.collect()
    }

    /// Whether segments are left to be mapped.
    #[inline]
    pub(crate) fn is_swapping_in(&self) -> bool {
        self.residency.swap_in.is_some()
    }

    /// Brings one more segment if the copies would else run out. `commands_follow`: the program posts one after the other.
    #[inline]
    pub(crate) fn keep_bringing(&mut self, commands_follow: bool) -> Result<(), Halt> {
        match &mut self.residency.swap_in {
            None if self.residency.lean.is_some() => self.keep_passing(commands_follow),
            None => Ok(()),
            Some(swap_in) if commands_follow && swap_in.pace.is_commands_turn(Instant::now()) => Ok(()),
            Some(swap_in) => {
                let arrived = self.arrivals.arrived();
                while swap_in.under_way.front().is_some_and(|&(group, _)| group <= arrived) {
                    swap_in.under_way.pop_front();
                }
                let under_way: u64 = swap_in.under_way.iter().map(|&(_, bytes)| bytes).sum();
                let next = swap_in.incoming.front().map(|next| (next.address, next.bytes));
                let may_bring = under_way < UNDER_WAY_BYTES
                    && next.is_none_or(|(address, bytes)| self.may_bring(address, bytes));
                if may_bring { self.bring_next() } else { Ok(()) }
            }
        }
    }

    /// Brings everything up to a group, if it is planned.
    #[inline]
    pub(crate) fn bring_up_to(&mut self, group: u64) -> Result<(), Halt> {
        while let Some(swap_in) = &self.residency.swap_in
            && swap_in.incoming.front().is_some_and(|next| next.group <= group)
        {
            self.bring_next()?;
        }
        Ok(())
    }

    /// Maps one more segment and posts its contents.
    fn bring_next(&mut self) -> Result<(), Halt> {
        let Some(swap_in) = &mut self.residency.swap_in else { return Ok(()) };
        let Some(Incoming { address, bytes, group, closes }) = swap_in.incoming.pop_front() else {
            return Ok(());
        };
        swap_in.reserved_bytes -= bytes;
        swap_in.under_way.push_back((group, bytes));
        let brought = self.bring(address, bytes, closes);
        if brought.is_err() {
            // Nothing of the client may run while memory is missing: its next command begins anew.
            self.give_up_turn();
            return brought;
        }
        if self.residency.swap_in.as_ref().is_some_and(|swap_in| swap_in.incoming.is_empty()) {
            self.end_swap_in();
        }
        Ok(())
    }

    /// Maps a segment and posts its contents; ends the group if that `closes` it. The memory was reserved, and that is used up.
    pub(super) fn bring(&mut self, address: u64, bytes: u64, closes: bool) -> Result<(), Halt> {
        let began = Instant::now();
        self.back(address, bytes)?;
        let mapping_time = began.elapsed();
        let posted = self.post_contents(address).and_then(|posted| {
            if closes {
                self.arrivals.close_group(&self.shared.device, self.streams.enter_setup())?;
            }
            Ok(posted)
        });
        if posted.is_err() {
            self.unback(address)?;
        }
        let posted = posted?;
        if let Some(swap_in) = &mut self.residency.swap_in {
            swap_in.mapping_time += mapping_time;
            swap_in.pace.note(began, Instant::now());
            swap_in.copied_bytes += posted.bytes;
            swap_in.copies += posted.copies;
        }
        Ok(())
    }

    /// What was just posted for a segment arrives with a group of its own, or with the next one of a swap-in, whose numbers
    /// are given out.
    pub(crate) fn arrive(&mut self, address: u64) -> Result<(), Halt> {
        let next = self.residency.swap_in.as_ref().and_then(|swap_in| swap_in.incoming.front());
        let group = match next {
            Some(next) => next.group,
            None => {
                self.arrivals.close_group(&self.shared.device, self.streams.enter_setup())?;
                self.arrivals.last()
            }
        };
        if let Some((_, segment)) = self.space.segment_of_mut(address) {
            segment.arrival = group;
        }
        Ok(())
    }

    /// Everything is posted.
    fn end_swap_in(&mut self) {
        let Some(swap_in) = self.residency.swap_in.take() else { return };
        self.shared.turns.has_come(self.link.client);
        let cost = swap_in.reserve_time + swap_in.began.elapsed();
        self.residency.tenure.costs(cost);
        self.residency.way = self.residency.way.max(cost);
        let swapping_us = u64::try_from(cost.as_micros()).unwrap_or(u64::MAX);
        self.link.usage.swapping_us.fetch_add(swapping_us, Ordering::Relaxed);
        self.tell_memory();
        tracing::debug!(
            client = self.link.client,
            function = %self.link.function,
            segments = swap_in.segments,
            pointing = self.space.segments().filter(|(_, segment)| segment.pointers().next().is_some()).count(),
            pointers = self.space.segments().map(|(_, segment)| segment.pointers().count()).sum::<usize>(),
            bytes = swap_in.bytes,
            copied_bytes = swap_in.copied_bytes,
            copies = swap_in.copies,
            peer_bytes = swap_in.peer_bytes,
            reserve_us = swap_in.reserve_time.as_micros(),
            map_us = swap_in.mapping_time.as_micros(),
            post_us = swap_in.began.elapsed().as_micros(),
            "swapped in"
        );
        self.shared.tell_followers(self.link.client, || {
            happened::What::SwappedIn(SwappedIn {
                // The server knows which it is.
                gpu: 0,
                segments: swap_in.segments as u64,
                bytes: swap_in.bytes,
                copied_bytes: swap_in.copied_bytes,
                reserve_us: micros(swap_in.reserve_time),
                map_us: micros(swap_in.mapping_time),
                post_us: micros(swap_in.began.elapsed()),
                peer_bytes: swap_in.peer_bytes,
            })
        });
    }

    /// What is not brought by now is not brought: it can be the next time.
    pub(crate) fn abandon_swap_in(&mut self) {
        if let Some(swap_in) = self.residency.swap_in.take() {
            self.shared.memory.unreserve(self.link.client, swap_in.reserved_bytes);
            self.tell_memory();
        }
    }

    /// A segment is freed: it need not be brought.
    pub(crate) fn spare_swap_in(&mut self, address: u64) -> Result<(), Halt> {
        // Its group may be waited for, and may have no other segment.
        match self.space.segment_of(address) {
            Some((_, segment)) if segment.backing.is_none() => self.bring_up_to(EVERYTHING),
            _ => Ok(()),
        }
    }
}
