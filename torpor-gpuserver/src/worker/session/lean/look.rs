//! A look at segments before they go: the GPU digests them behind all work on them, and who has not been changed can be brought again.
//!
//! They are looked at in a stream of their own, beside what comes, and nobody waits for the answer.

use crate::chunk::CHUNK_BYTES;
use crate::worker::gpu::digest::DigestBuffer;
use crate::worker::gpu::fence::{Fence, Fences};
use crate::worker::gpu::host_store::Content;
use crate::worker::objects::pending::Pending;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::sync::lock;
use torpor_proto::error::CudaError;

/// A look that is under way.
#[derive(Debug)]
pub(super) struct Look {
    /// When these are reached it is over.
    fences: Vec<Fence>,
    buffer: DigestBuffer,
    /// What is looked at, with how often each had been used.
    segments: Vec<(u64, u64)>,
}

impl Look {
    /// Whether this segment is looked at.
    pub(super) fn is_at(&self, start: u64) -> bool {
        self.segments.iter().any(|&(segment, _)| segment == start)
    }

    /// Whether the answer is there.
    pub(super) fn is_over(&self, fences: &Fences) -> bool {
        self.fences.iter().all(|&fence| fences.is_reached(fence))
    }
}

impl Session {
    /// Begins to look at segments that the GPU has done with.
    pub(super) fn begin_look(&mut self, segments: Vec<(u64, u64)>) -> Result<(), Halt> {
        let shared = self.shared.clone();
        let buffer = self.digest_buffer()?;
        let mut count = 0;
        for &(start, _) in &segments {
            let Some((_, segment)) = self.space.segment_of(start) else { continue };
            let at = self.space.device_address(start).ok_or(CudaError::UNKNOWN)?;
            for chunk in 0..segment.chunks.len() as u64 {
                buffer.set_chunk(count, at + chunk * CHUNK_BYTES);
                count += 1;
            }
        }
        let reachable = [self.space.arena(), self.space.host.range()];
        let stream = self.streams.enter_looks()?;
        // SAFETY: the buffer is the look's alone until that is over; the chunks are those of resident segments, which stay until then,
        // or until the client's streams, this one included, are idle.
        let posted = unsafe { shared.digests.post(stream, &buffer, count, CHUNK_BYTES, reachable) };
        let fence = posted.and_then(|()| self.streams.fence_looks());
        match (fence, &mut self.residency.lean) {
            (Ok(fence), Some(lean)) => {
                let fences = Vec::from_iter(fence);
                self.pending.push(Pending::Looked(fences.clone()));
                lean.look = Some(Look { fences, buffer, segments });
                Ok(())
            }
            (fence, _) => {
                // The kernel may run, so nobody else may have it.
                std::mem::forget(buffer);
                fence?;
                Ok(())
            }
        }
    }

    /// Lets those go that are what the store has, if the look is over. False if there is none that is over.
    pub(super) fn finish_look(&mut self) -> bool {
        let Some(lean) = &mut self.residency.lean else { return false };
        let is_over = |look: &mut Look| look.is_over(&self.streams.fences);
        let Some(Look { buffer, segments, .. }) = lean.look.take_if(is_over) else { return false };
        let mut at = 0;
        for (start, uses) in segments {
            let Some((_, segment)) = self.space.segment_of_mut(start) else { continue };
            let mut is_same = true;
            for (chunk, index) in segment.chunks.iter_mut().zip(at..) {
                let digest = buffer.digest(index);
                let is_kept = match &chunk.content {
                    Content::Zero => digest.is_zero,
                    Content::Stored { digest: before, .. } => *before == digest,
                    Content::Unsaved { .. } => false,
                };
                // From now on it is known to change.
                chunk.is_fleeting |= !is_kept;
                is_same &= is_kept;
            }
            at += segment.chunks.len();
            self.let_go(start, uses, is_same);
        }
        lock(&self.shared.digest_buffers).push(buffer);
        true
    }

    /// A segment was looked at. It goes, unless it was used meanwhile; one that was changed stays.
    fn let_go(&mut self, start: u64, uses: u64, is_same: bool) {
        let Some(lean) = &mut self.residency.lean else { return };
        let Some(passing) = lean.passing.get_mut(&start) else { return };
        if !is_same {
            lean.passing.remove(&start);
            lean.changed += 1;
        } else if passing.is_here && passing.uses == uses && !lean.named.contains(&start) {
            passing.is_here = false;
            self.drop_segment(start);
        }
    }

    /// Nobody wants to know any more.
    pub(super) fn end_look(&mut self, look: Look) {
        match look.is_over(&self.streams.fences) {
            true => lock(&self.shared.digest_buffers).push(look.buffer),
            // The kernel may still write into the buffer, so nobody else may have it.
            false => std::mem::forget(look.buffer),
        }
    }
}
