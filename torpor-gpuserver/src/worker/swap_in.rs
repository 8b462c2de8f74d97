//! Swap-in: bringing a client's memory to the GPU while its first kernels already run.
//!
//! Segments are mapped one after the other, in the order in which the last request needed them, and their chunks copied
//! from the host store behind each other in one stream. An event closes each group of segments; work that can reach a
//! segment waits for its group (`reach.rs`). The session posts all that in one go: mapping the last segments and copying
//! the first overlap.

use crate::driver::{Place, Segment};
use crate::swap_mode::SwapMode;
use crate::worker::gpu_memory::Reserved;
use crate::worker::segments::{Backing, CHUNK_BYTES, Chunk, Content};
use crate::worker::session::Session;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use torpor_proto::error::CudaError;

impl Session {
    /// Brings what is not there. When this returns, everything is mapped and the copies are under way.
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
        self.renew_lease()?;
        self.reserve_memory(bytes)?;
        let began = Instant::now();
        let mut unbacked = bytes;
        let brought = self.bring(&missing, &mut unbacked);
        self.shared.memory.unreserve(self.link.client, unbacked);
        self.tell_memory();
        let copied_bytes = brought?;
        tracing::debug!(
            client = self.link.client,
            function = %self.link.function,
            segments = missing.len(),
            bytes,
            copied_bytes,
            reserve_us = began.duration_since(asked).as_micros(),
            map_us = self.residency.mapping_time.as_micros(),
            post_us = began.elapsed().as_micros(),
            "swapped in"
        );
        self.residency.touched = Some(Vec::new());
        if !self.shared.swap.is_pipelined() {
            let fence = self.streams.fence_setup()?;
            self.wait_for(Vec::from_iter(fence))?;
            self.arrivals.complete();
        }
        Ok(())
    }

    /// Segments that are not resident, with their lengths: first those that the last request touched, in its order.
    fn missing(&self) -> Vec<(u64, u64)> {
        let rank: HashMap<u64, usize> = self.residency.order.iter().copied().zip(0..).collect();
        let absent = self.space.segments().filter(|(_, segment)| segment.backing.is_none());
        let mut missing: Vec<_> = absent.map(|(address, segment)| (address, segment.bytes)).collect();
        missing.sort_by_key(|(address, _)| (rank.get(address).copied().unwrap_or(usize::MAX), *address));
        missing
    }

    /// Waits until so much of the GPU's memory is this client's.
    pub(super) fn reserve_memory(&mut self, bytes: u64) -> Result<(), CudaError> {
        let (link, shared) = (self.link.clone(), self.shared.clone());
        loop {
            match shared.memory.reserve(link.client, bytes) {
                Reserved::Granted => return Ok(()),
                Reserved::Later => self.wait_around()?,
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

    fn bring(&mut self, missing: &[(u64, u64)], unbacked: &mut u64) -> Result<u64, CudaError> {
        self.residency.mapping_time = Duration::ZERO;
        let mut copied_bytes = 0;
        let group_bytes = self.shared.swap.group_bytes(self.shared.group_bytes);
        let mut groups = HashMap::new();
        let mut in_group = 0;
        for (at, &(address, bytes)) in missing.iter().enumerate() {
            *unbacked -= bytes;
            let mapping = Instant::now();
            self.back(address, bytes)?;
            self.residency.mapping_time += mapping.elapsed();
            copied_bytes += self.post_contents(address)?;
            groups.insert(address, self.arrivals.next());
            in_group += bytes;
            if in_group >= group_bytes || at + 1 == missing.len() {
                self.arrivals.close_group(&self.shared.device, self.streams.enter_setup())?;
                in_group = 0;
            }
        }
        self.space.spread_arrivals(&groups);
        Ok(copied_bytes)
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
        let backing = Backing::new(segment, &memory, client);
        if let Some((_, segment)) = self.space.segment_of_mut(address) {
            segment.backing = Some(backing);
        }
        Ok(())
    }

    /// Posts the copies and fills that give a segment that was just backed its contents, every byte of it. Returns how much
    /// is copied.
    fn post_contents(&mut self, address: u64) -> Result<u64, CudaError> {
        let (_, segment) = self.space.segment_of(address).ok_or(CudaError::UNKNOWN)?;
        let source = |chunk: &Chunk| match &chunk.content {
            Content::Zero => Ok(None),
            Content::Stored { place, .. } => {
                let address = match self.shared.swap {
                    SwapMode::Pageable => self.shared.store.pageable_address(place.slot),
                    _ => self.shared.store.address(place.slot),
                };
                address.map(Some).ok_or(CudaError::OPERATING_SYSTEM)
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
    fn renew_lease(&mut self) -> Result<(), CudaError> {
        if !self.residency.lease_lost {
            return Ok(());
        }
        let places = self.shared.store.lease(self.link.client, &|| self.is_interrupted());
        let places: HashMap<u64, _> = places
            .map_err(|error| self.store_failed(&error))?
            .into_iter()
            .map(|place| (place.chunk, place))
            .collect();
        for (_, segment) in self.space.segments_mut() {
            for chunk in &mut segment.chunks {
                if let Content::Stored { place, .. } = &mut chunk.content {
                    *place = *places.get(&place.chunk).ok_or(CudaError::OPERATING_SYSTEM)?;
                }
            }
        }
        self.residency.lease_lost = false;
        Ok(())
    }
}
