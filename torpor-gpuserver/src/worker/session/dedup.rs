//! Identifying chunks: what a client has in the host store is hashed while the session has nothing else to do, so that equal
//! chunks of many functions are kept once.
//!
//! A hash takes about a millisecond; between two the session looks at its ring. Few sessions of a worker hash at a time.

use crate::worker::gpu::host_store::Content;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::sync::lock_now;
use std::time::Duration;
use torpor_proto::error::CudaError;

/// How long a session has been idle before it hashes: a request may be about to come.
const IDLE: Duration = Duration::from_millis(20);

/// The same for chunks that requests change: an equal of one would be of use until the next request.
const LONG_IDLE: Duration = Duration::from_secs(1);

/// Chunks that the store is told of at once.
const BATCH: usize = 32;

/// A hashed chunk that the store was not told of yet: its number and hash.
pub(crate) type Identified = Vec<(u64, [u8; 32])>;

impl Session {
    /// Hashes one more chunk if it is time for that. True if there is more to do.
    ///
    /// # Errors
    /// [`Halt::Interrupted`].
    pub(crate) fn identify(&mut self, idle: Duration) -> Result<bool, Halt> {
        if !self.residency.unidentified || idle < IDLE || self.residency.lease_lost {
            return Ok(false);
        }
        // What it has is about to be saved anew.
        if self.survives() && self.can_be_covered() {
            return Ok(false);
        }
        let shared = self.shared.clone();
        let Some(_hashing) = shared.hashing.iter().find_map(lock_now) else { return Ok(false) };
        let known = |chunk: u64| self.hashed.iter().any(|&(hashed, _)| hashed == chunk);
        let is_long = idle >= LONG_IDLE;
        if self.residency.is_looked_through && !is_long {
            return Ok(false);
        }
        let chunks = self.space.segments().flat_map(|(_, segment)| &segment.chunks);
        let chunks = chunks.filter(|chunk| is_long || !chunk.is_fleeting);
        let next = chunks.filter_map(|chunk| match &chunk.content {
            Content::Stored { place, identified: false, .. } if !known(place.chunk) => Some(*place),
            _ => None,
        });
        let next = next.take(1).collect::<Vec<_>>();
        let [place] = next[..] else {
            self.tell_identified()?;
            self.residency.unidentified &= !is_long;
            self.residency.is_looked_through = true;
            return Ok(false);
        };
        let hash = shared.store.hash(place.slot).ok_or(CudaError::OPERATING_SYSTEM)?;
        self.hashed.push((place.chunk, hash));
        if self.hashed.len() >= BATCH {
            self.tell_identified()?;
        }
        Ok(true)
    }

    /// Tells the store what was hashed, and refers to its equals from now on.
    fn tell_identified(&mut self) -> Result<(), Halt> {
        let hashed = std::mem::take(&mut self.hashed);
        if hashed.is_empty() {
            return Ok(());
        }
        // The server knows by which numbers its state calls those that become equal ones, so the state holds.
        let hashed_and_named = (&hashed[..], self.survives());
        let store = &self.shared.store;
        let places = match store.identify(self.link.client, hashed_and_named, &|| self.is_interrupted()) {
            Ok(places) if places.len() == hashed.len() => places,
            Ok(_) => return Err(CudaError::OPERATING_SYSTEM.into()),
            Err(error) => return Err(self.store_failed(&error)),
        };
        for (_, segment) in self.space.segments_mut() {
            for chunk in &mut segment.chunks {
                if let Content::Stored { place, identified, .. } = &mut chunk.content
                    && let Some(at) = hashed.iter().position(|&(hashed, _)| hashed == place.chunk)
                {
                    *place = places[at];
                    *identified = true;
                }
            }
        }
        Ok(())
    }
}
