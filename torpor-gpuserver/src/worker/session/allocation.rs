//! Allocation: which segments a client may have, and the physical memory behind them.

use crate::driver::PhysicalMemory;
use crate::state_file::Void;
use crate::worker::gpu::fence::Fence;
use crate::worker::gpu::memory::Reserved;
use crate::worker::gpu::pinned_budget::PinnedShare;
use crate::worker::memory::segment::Backing;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::session::shortage::Room;
use std::sync::atomic::Ordering;
use std::time::Instant;
use torpor_proto::error::CudaError;

impl Session {
    /// Whether the client may have this segment. A refusal for its limit is told to people, too.
    pub(crate) fn check_new(&mut self, address: u64, bytes: u64) -> Result<(), CudaError> {
        let mut checked = self.space.check_new(address, bytes);
        if checked == Err(CudaError::OUT_OF_MEMORY) {
            // A client that is never idle has not been told of a new limit.
            self.renew_settings();
            checked = self.space.check_new(address, bytes);
        }
        if checked == Err(CudaError::OUT_OF_MEMORY)
            && let Some(untold) = self.residency.refusals.tell(Instant::now())
        {
            let link = &self.link;
            tracing::warn!(
                client = link.client,
                function = %link.function,
                untold,
                "out of memory: an allocation of {bytes} bytes is refused, for this process of the function has {} of the \
                 {} bytes that it may have: raise the function's memory_limit (at most the GPU's limit)",
                self.space.allocated_bytes(),
                self.space.limit_bytes()
            );
        }
        checked
    }

    /// Makes a segment, and gives it reserved physical memory that is cleared behind the fence. The reservation is used up,
    /// whatever comes of it.
    pub(crate) fn make_segment(&mut self, address: u64, bytes: u64) -> Result<Option<Fence>, Halt> {
        self.space.allocate(address, bytes).inspect_err(|_| {
            // The limit is another one than before the client waited for its turn.
            self.shared.memory.unreserve(self.link.client, bytes);
        })?;
        let backed = self.back_cleared(address, bytes);
        if backed.is_err() {
            // The fill may be under way.
            self.unback(address)?;
            drop(self.space.free(address)?);
        }
        self.tell_memory();
        backed
    }

    /// Gives a segment physical memory and clears it: it may have been somebody else's. A client may name it before it has
    /// the answer, so what names it waits on the GPU.
    fn back_cleared(&mut self, address: u64, bytes: u64) -> Result<Option<Fence>, Halt> {
        self.back(address, bytes)?;
        // SAFETY: a segment of this length was just mapped here.
        unsafe { self.streams.enter_setup().fill(address, (0, bytes as usize, 1), 0, 1)? };
        self.arrive(address)?;
        Ok(self.streams.fence_setup()?)
    }

    /// Takes a segment's memory away once all work of the client is done.
    pub(crate) fn free_segment(&mut self, address: u64) -> Result<(), Halt> {
        self.spare_swap_in(address)?;
        self.drain()?;
        self.give_up_shared(address)?;
        let segment = self.space.free(address)?;
        self.forget_passing(address);
        let stored: Vec<u64> = segment.stored().collect();
        self.release(&stored, Void::Freed);
        drop(segment);
        self.tell_memory();
        Ok(())
    }

    /// Whether so much of the GPU's memory is this client's now. If not, others are to make room for it, and it asks again.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` if nobody can.
    pub(crate) fn try_reserve(&mut self, bytes: u64) -> Result<Room, Halt> {
        let (link, memory) = (&self.link, &self.shared.memory);
        match memory.reserve(link.client, bytes, &self.shared.turns) {
            Reserved::Granted => return Ok(Room::Granted),
            Reserved::StepBack => return Ok(Room::StepBack),
            Reserved::Later => return Ok(Room::Later),
            Reserved::Exhausted => {}
        }
        if let Some(untold) = self.residency.exhaustions.tell(Instant::now()) {
            tracing::error!(
                client = link.client,
                function = %link.function,
                untold,
                "no room on the GPU: {bytes} bytes are needed, functions may use {} in all, and nothing else can be \
                 evicted",
                memory.limit_bytes()
            );
        }
        Err(Halt::Refused(CudaError::OUT_OF_MEMORY))
    }

    /// Waits until so much is this client's, in the middle of something that cannot be begun again.
    fn reserve_again(&mut self, bytes: u64) -> Result<(), Halt> {
        let mut waited = false;
        let reserved = loop {
            match self.try_reserve(bytes) {
                Ok(Room::Granted) => break Ok(()),
                Ok(Room::StepBack) => break Err(Halt::Refused(CudaError::OUT_OF_MEMORY)),
                Ok(Room::Later) => {
                    waited = true;
                    if let Err(halt) = self.wait_around() {
                        self.shared.memory.wait_no_longer(self.link.client);
                        break Err(halt);
                    }
                }
                Err(halt) => break Err(halt),
            }
        };
        if waited {
            self.shared.turns.want_no_memory(self.link.client);
        }
        reserved
    }

    /// Puts reserved physical memory behind a segment; the reservation is used up, whatever comes of it. The memory holds
    /// whatever was in it.
    pub(crate) fn back(&mut self, address: u64, bytes: u64) -> Result<(), Halt> {
        let physical = self.take_physical(bytes)?;
        let mut backing = Backing::new(physical, &self.shared.memory, self.link.client);
        let Some((_, segment)) = self.space.segment_of_mut(address) else {
            return Err(CudaError::UNKNOWN.into());
        };
        segment.places(address).into_iter().try_for_each(|place| backing.map(place))?;
        backing.is_filled = true;
        segment.backing = Some(backing);
        Ok(())
    }

    /// Takes reserved physical memory; the reservation is used up, whatever comes of it.
    pub(crate) fn take_physical(&mut self, bytes: u64) -> Result<PhysicalMemory, Halt> {
        let (client, memory) = (self.link.client, self.shared.memory.clone());
        loop {
            match memory.take(bytes) {
                Ok(physical) => return Ok(physical),
                Err(error) => {
                    memory.unreserve(client, bytes);
                    if error != CudaError::OUT_OF_MEMORY {
                        return Err(error.into());
                    }
                    // Somebody else has what should be there: others of ours must leave instead.
                    memory.lower_limit(bytes);
                    self.reserve_again(bytes)?;
                }
            }
        }
    }

    /// Takes a segment's memory away again: without its contents it has somebody else's. Whatever was posted before has
    /// arrived then, whether or not its group was closed.
    pub(crate) fn unback(&mut self, address: u64) -> Result<(), Halt> {
        if let Err(halt) = self.wait_for_setup() {
            if halt != Halt::Interrupted {
                let reason = format!("client {}, taking memory back", self.link.client);
                self.shared.lose(halt.into(), reason);
            }
            return Err(halt);
        }
        if let Some((_, segment)) = self.space.segment_of_mut(address) {
            segment.backing = None;
        }
        Ok(())
    }

    /// A part of the page-locked memory that the client may have. A refusal is told to people, too.
    pub(crate) fn pinned_share(&mut self, bytes: u64) -> Result<PinnedShare, CudaError> {
        // A client that is never idle has not been told of a new limit.
        self.renew_settings();
        let link = &self.link;
        let limit_bytes = link.pinned_limit_bytes.load(Ordering::Relaxed);
        self.shared.take_pinned(&link.function, limit_bytes, bytes).map_err(|refusal| {
            if let Some(untold) = self.residency.refusals.tell(Instant::now()) {
                tracing::warn!(client = link.client, untold, "{refusal}");
            }
            CudaError::OUT_OF_MEMORY
        })
    }

    /// Page-locks a part of the client's host range, if it may have so much.
    pub(crate) fn lock_host(&mut self, address: u64, bytes: u64) -> Result<(), CudaError> {
        let share = self.pinned_share(bytes)?;
        self.space.host.lock(address, bytes, share)?;
        self.tell_pinned();
        Ok(())
    }

    /// Undoes [`Self::lock_host`]. The GPU must have done with the part.
    pub(crate) fn unlock_host(&mut self, address: u64) -> Result<(), CudaError> {
        let unlocked = self.space.host.unlock(address);
        self.tell_pinned();
        unlocked
    }

    /// Notes how much is page-locked.
    pub(crate) fn tell_pinned(&self) {
        self.link.usage.pinned_bytes.store(self.space.host.locked_bytes(), Ordering::Relaxed);
    }
}
