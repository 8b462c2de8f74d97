//! Swap-in: bringing a client's memory to the GPU while its first kernels already run.
//!
//! Segments are mapped one after the other, in the order in which the last request needed them, and their chunks copied
//! from the host store behind each other in one stream. An event closes each group of segments; work that can reach a
//! segment waits for its group (`reach.rs`). All groups are planned at once, but the session maps only a little ahead of the
//! copies and executes commands in between: mapping costs about 40 µs a segment, which the first kernels need not wait
//! for. A command that needs what is not mapped yet has it mapped first.

use crate::chunk::CHUNK_BYTES;
use crate::driver::{Place, Segment};
use crate::worker::arrivals::EVERYTHING;
use crate::worker::gpu_memory::Reserved;
use crate::worker::segments::{Backing, Chunk, Content};
use crate::worker::session::Session;
use crate::worker::store::StoreError;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use torpor_proto::error::CudaError;

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
pub(super) struct SwapIn {
    incoming: VecDeque<Incoming>,
    /// Reserved for what is left.
    reserved_bytes: u64,
    /// Groups that are on their way, the oldest first, with their bytes.
    under_way: VecDeque<(u64, u64)>,
    bytes: u64,
    segments: usize,
    copied_bytes: u64,
    began: Instant,
    reserve_time: Duration,
    mapping_time: Duration,
}

impl Session {
    /// Begins to bring what is not there.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` if there is no room, `CUDA_ERROR_OPERATING_SYSTEM` if the host store does not have what was
    /// given to it, or the context's.
    pub(super) fn swap_in(&mut self) -> Result<(), CudaError> {
        let missing = self.missing();
        let bytes: u64 = missing.iter().map(|&(_, bytes)| bytes).sum();
        if bytes == 0 {
            self.link.usage.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        self.link.usage.swaps.fetch_add(1, Ordering::Relaxed);
        let asked = Instant::now();
        self.reserve_memory(bytes)?;
        // Only now: those that left for this one may have needed the slots.
        if let Err(error) = self.renew_lease() {
            self.shared.memory.unreserve(self.link.client, bytes);
            return Err(self.store_failed(&error));
        }
        let began = Instant::now();
        let incoming = self.plan(&missing);
        let groups = incoming.iter().map(|one| (one.address, one.group)).collect();
        self.space.spread_arrivals(&groups);
        self.residency.swap_in = Some(SwapIn {
            segments: incoming.len(),
            incoming,
            reserved_bytes: bytes,
            under_way: VecDeque::new(),
            bytes,
            copied_bytes: 0,
            began,
            reserve_time: began.duration_since(asked),
            mapping_time: Duration::ZERO,
        });
        self.residency.touched = Some(Vec::new());
        if self.shared.swap.is_pipelined() {
            return self.bring_next();
        }
        self.bring_up_to(EVERYTHING)?;
        let fence = self.streams.fence_setup()?;
        self.wait_for(Vec::from_iter(fence))?;
        self.arrivals.complete();
        Ok(())
    }

    /// Which segment comes in which group.
    fn plan(&self, missing: &[(u64, u64)]) -> VecDeque<Incoming> {
        let group_bytes = self.shared.swap.group_bytes(self.shared.group_bytes);
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
    pub(super) fn is_swapping_in(&self) -> bool {
        self.residency.swap_in.is_some()
    }

    /// Brings one more segment if the copies would else run out.
    #[inline]
    pub(super) fn keep_bringing(&mut self) -> Result<(), CudaError> {
        match &mut self.residency.swap_in {
            None => Ok(()),
            Some(swap_in) => {
                let arrived = self.arrivals.arrived();
                while swap_in.under_way.front().is_some_and(|&(group, _)| group <= arrived) {
                    swap_in.under_way.pop_front();
                }
                let under_way: u64 = swap_in.under_way.iter().map(|&(_, bytes)| bytes).sum();
                if under_way < UNDER_WAY_BYTES { self.bring_next() } else { Ok(()) }
            }
        }
    }

    /// Brings everything up to a group, if it is planned.
    #[inline]
    pub(super) fn bring_up_to(&mut self, group: u64) -> Result<(), CudaError> {
        while let Some(swap_in) = &self.residency.swap_in
            && swap_in.incoming.front().is_some_and(|next| next.group <= group)
        {
            self.bring_next()?;
        }
        Ok(())
    }

    /// Maps one more segment and posts its contents.
    fn bring_next(&mut self) -> Result<(), CudaError> {
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

    fn bring(&mut self, address: u64, bytes: u64, closes: bool) -> Result<(), CudaError> {
        let began = Instant::now();
        self.back(address, bytes)?;
        let mapping_time = began.elapsed();
        let posted = self.post_contents(address).and_then(|copied_bytes| {
            if closes {
                self.arrivals.close_group(&self.shared.device, self.streams.enter_setup())?;
            }
            Ok(copied_bytes)
        });
        if posted.is_err() {
            self.unback(address)?;
        }
        let copied_bytes = posted?;
        if let Some(swap_in) = &mut self.residency.swap_in {
            swap_in.mapping_time += mapping_time;
            swap_in.copied_bytes += copied_bytes;
        }
        Ok(())
    }

    /// Everything is posted.
    fn end_swap_in(&mut self) {
        let Some(swap_in) = self.residency.swap_in.take() else { return };
        self.tell_memory();
        tracing::debug!(
            client = self.link.client,
            function = %self.link.function,
            segments = swap_in.segments,
            pointing = self.space.segments().filter(|(_, segment)| segment.pointers().next().is_some()).count(),
            pointers = self.space.segments().map(|(_, segment)| segment.pointers().count()).sum::<usize>(),
            bytes = swap_in.bytes,
            copied_bytes = swap_in.copied_bytes,
            reserve_us = swap_in.reserve_time.as_micros(),
            map_us = swap_in.mapping_time.as_micros(),
            post_us = swap_in.began.elapsed().as_micros(),
            "swapped in"
        );
    }

    /// What is not brought by now is not brought: it can be the next time.
    pub(super) fn abandon_swap_in(&mut self) {
        if let Some(swap_in) = self.residency.swap_in.take() {
            self.shared.memory.unreserve(self.link.client, swap_in.reserved_bytes);
            self.tell_memory();
        }
    }

    /// A segment is freed: it need not be brought.
    pub(super) fn spare_swap_in(&mut self, address: u64) -> Result<(), CudaError> {
        // Its group may be waited for, and may have no other segment.
        match self.space.segment_of(address) {
            Some((_, segment)) if segment.backing.is_none() => self.bring_up_to(EVERYTHING),
            _ => Ok(()),
        }
    }

    /// Segments that are not resident, with their lengths: first those that the last request touched, in its order, each
    /// followed by what it points to, because whoever waits for one waits for the other.
    fn missing(&self) -> Vec<(u64, u64)> {
        let (mut seen, mut missing) = (HashSet::new(), Vec::new());
        let others = self.space.segments().map(|(address, _)| address);
        for first in self.residency.order.iter().copied().chain(others) {
            let mut open = vec![first];
            while let Some(address) = open.pop() {
                let Some((start, segment)) = self.space.segment_of(address) else { continue };
                if seen.insert(start) {
                    if segment.backing.is_none() {
                        missing.push((start, segment.bytes));
                    }
                    open.extend(segment.pointers());
                }
            }
        }
        missing
    }

    /// Waits until so much of the GPU's memory is this client's.
    pub(super) fn reserve_memory(&mut self, bytes: u64) -> Result<(), CudaError> {
        let (link, shared) = (self.link.clone(), self.shared.clone());
        loop {
            match shared.memory.reserve(link.client, bytes) {
                Reserved::Granted => return Ok(()),
                Reserved::Later => {
                    if let Err(error) = self.lend_lease().and_then(|()| self.wait_around()) {
                        shared.memory.wait_no_longer(link.client);
                        return Err(error);
                    }
                }
                Reserved::Exhausted => {
                    tracing::error!(
                        client = link.client,
                        function = %link.function,
                        "no room on the GPU: {bytes} bytes are needed, functions may use {} in all, and nothing else can \
                         be evicted",
                        shared.memory.limit_bytes()
                    );
                    return Err(CudaError::OUT_OF_MEMORY);
                }
            }
        }
    }

    /// Puts reserved physical memory behind a segment; the reservation is used up, whatever comes of it. The memory holds
    /// whatever was in it.
    pub(super) fn back(&mut self, address: u64, bytes: u64) -> Result<(), CudaError> {
        let (client, memory) = (self.link.client, self.shared.memory.clone());
        let physical = loop {
            match memory.take(bytes) {
                Ok(physical) => break physical,
                Err(error) => {
                    memory.unreserve(client, bytes);
                    if error != CudaError::OUT_OF_MEMORY {
                        return Err(error);
                    }
                    // Somebody else has what should be there: others of ours must leave instead.
                    memory.lower_limit(bytes);
                    self.reserve_memory(bytes)?;
                }
            }
        };
        let segment = match Segment::map(physical, address) {
            Ok(segment) => segment,
            Err(error) => {
                memory.unreserve(client, bytes);
                return Err(error);
            }
        };
        let backing = Backing::new(segment, &memory, client, bytes);
        if let Some((_, segment)) = self.space.segment_of_mut(address) {
            segment.backing = Some(backing);
        }
        Ok(())
    }

    /// Takes a segment's memory away again: without its contents it has somebody else's. Whatever was posted before has
    /// arrived then, whether or not its group was closed.
    pub(super) fn unback(&mut self, address: u64) -> Result<(), CudaError> {
        if let Err(error) = self.wait_for_setup() {
            if error != CudaError::DEINITIALIZED {
                self.shared.lose(error, format!("client {}, taking memory back", self.link.client));
            }
            return Err(error);
        }
        if let Some((_, segment)) = self.space.segment_of_mut(address) {
            segment.backing = None;
        }
        Ok(())
    }

    /// Posts the copies and fills that give a segment that was just backed its contents, every byte of it. Returns how much
    /// is copied.
    fn post_contents(&mut self, address: u64) -> Result<u64, CudaError> {
        let (_, segment) = self.space.segment_of(address).ok_or(CudaError::UNKNOWN)?;
        let source = |chunk: &Chunk| match &chunk.content {
            Content::Zero => Ok(None),
            Content::Unsaved { .. } => Err(CudaError::OPERATING_SYSTEM),
            Content::Stored { place, .. } => {
                self.shared.store.address(place.slot).map(Some).ok_or(CudaError::OPERATING_SYSTEM)
            }
        };
        let sources = segment.chunks.iter().map(source).collect::<Result<Vec<_>, _>>()?;
        let copied_bytes = sources.iter().flatten().count() as u64 * CHUNK_BYTES;
        let mut destination = address;
        let follows = |one: &Option<u64>, next: &Option<u64>| one.map(|one| one + CHUNK_BYTES) == *next;
        for run in sources
            .chunk_by(|one, next| one.is_none() == next.is_none() && (one.is_none() || follows(one, next)))
        {
            let bytes = run.len() as u64 * CHUNK_BYTES;
            let stream = self.streams.enter_setup();
            // SAFETY: the segment was just mapped and stays until the client's streams, this one included, are idle; the
            // slots are page-locked, and nobody writes them while the client refers to them.
            unsafe {
                match run[0] {
                    None => stream.fill(destination, (0, bytes as usize, 1), 0, 1)?,
                    Some(from) => {
                        stream.copy((Place::Device, destination), (Place::Host, from), bytes as usize)?;
                    }
                }
            }
            destination += bytes;
        }
        Ok(copied_bytes)
    }

    /// Asks the host store where the client's chunks are, if it has moved them meanwhile.
    pub(super) fn renew_lease(&mut self) -> Result<(), StoreError> {
        if !self.residency.lease_lost {
            return Ok(());
        }
        let places = self.shared.store.lease(self.link.client, &|| self.is_interrupted());
        let places: HashMap<u64, _> = places?.into_iter().map(|place| (place.chunk, place)).collect();
        for (_, segment) in self.space.segments_mut() {
            for chunk in &mut segment.chunks {
                if let Content::Stored { place, .. } = &mut chunk.content {
                    *place = *places.get(&place.chunk).ok_or(StoreError::Lost)?;
                }
            }
        }
        self.residency.lease_lost = false;
        Ok(())
    }
}
