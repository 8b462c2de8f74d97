//! Saving ahead of time: what an idle client has changed is saved in the host store while its memory stays on the GPU, so that
//! the client can be [covered](crate::worker::session::checkpoint), and leaves without a copy when somebody needs the room.
//!
//! It is done while nobody has anything to do on the GPU, piece by piece, and ends with the first command of anybody, at most
//! one piece later; beside the work of others only if it has waited for too long. What is replaced in the store is given up when
//! the server has been told of the new [generation](crate::worker::session::generations): unlike at an eviction, there is no need
//! to have room for it.

use crate::chunk::CHUNK_BYTES;
use crate::state_file::Void;
use crate::worker::gpu::digest::ChunkDigest;
use crate::worker::gpu::host_store::{Content, Room, StoreError};
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::session::snapshot::{Changes, ChunkAddress};
use crate::worker::sync::lock_now;
use crate::worker::work_time::micros;
use std::time::Instant;
use torpor_proto::control::event::SavedAhead;
use torpor_proto::control::worker::happened;

/// Chunks digested in one go: 0.2 ms of a GPU's memory.
const DIGESTED: usize = 256;

/// Chunks copied in one go: 0.3 ms of the bus.
const COPIED: usize = 8;

impl Session {
    /// Saves what the client has changed, if nobody else needs the GPU. True if all of it is saved.
    ///
    /// # Errors
    /// [`Halt::Lost`], or [`Halt::Interrupted`].
    pub(crate) fn save_ahead(&mut self) -> Result<bool, Halt> {
        let shared = self.shared.clone();
        let Some(_saving) = lock_now(&shared.saving) else { return Ok(false) };
        let (began, mut saved) = (Instant::now(), SavedAhead::default());
        let complete = self.save_in_pieces(&mut saved);
        let complete = self.unless_refused(complete)?.unwrap_or(false);
        let saved = SavedAhead { took_us: micros(began.elapsed()), complete, ..saved };
        let SavedAhead { copied_back_bytes, took_us, .. } = saved;
        if copied_back_bytes > 0 || complete {
            let client = self.link.client;
            tracing::debug!(client, function = %self.link.function, copied_back_bytes, took_us, complete, "saved ahead of time");
            shared.tell_followers(client, || happened::What::SavedAhead(saved));
        }
        Ok(complete)
    }

    /// Counts in `saved` what it looks at and copies.
    fn save_in_pieces(&mut self, saved: &mut SavedAhead) -> Result<bool, Halt> {
        self.arrivals.complete();
        self.map_unmapped()?;
        let suspects = self.suspects();
        for part in suspects.chunks(DIGESTED) {
            if self.is_disturbed() {
                return Ok(false);
            }
            let Changes { zero, changed } = self.changes(part)?;
            saved.digested_bytes += part.len() as u64 * CHUNK_BYTES;
            let mut released = Vec::new();
            zero.into_iter().for_each(|address| self.set_content(address, Content::Zero, &mut released));
            self.supersede(released);
            for (at, piece) in changed.chunks(COPIED).enumerate() {
                // What was digested of a client that would be lost leads to something, or one that is asked often would never be saved.
                let goes_on = at == 0 && self.is_in_danger();
                if (!goes_on && self.is_disturbed()) || !self.save_beside(piece)? {
                    return Ok(false);
                }
                saved.copied_back_bytes += piece.len() as u64 * CHUNK_BYTES;
            }
            self.note_looked_at(part);
        }
        self.note_snapshot();
        self.tell_memory();
        self.save_arrays_ahead()
    }

    /// Saves chunks. False if the store has no room to spare.
    fn save_beside(&mut self, changed: &[(ChunkAddress, ChunkDigest)]) -> Result<bool, Halt> {
        let mut reserved = self.reserve_places(changed.len(), Room::Spare);
        if matches!(reserved, Err(StoreError::Refused(_))) && !self.residency.superseded.is_empty() {
            // There is no room for two generations.
            self.uncover(Void::NoRoom);
            reserved = self.reserve_places(changed.len(), Room::Spare);
        }
        let places = match reserved {
            Ok(places) => places,
            Err(StoreError::Interrupted) => return Err(Halt::Interrupted),
            Err(error) => {
                self.end_reservation();
                tracing::debug!(client = self.link.client, "not saved ahead of time: {error}");
                return Ok(false);
            }
        };
        self.copy_back(changed, &places)?;
        let mut released = Vec::new();
        self.note_saved(changed, &places, &mut released);
        self.end_reservation();
        self.supersede(released);
        Ok(true)
    }

    /// Whether anybody has something to do that this would hold up.
    pub(crate) fn is_disturbed(&self) -> bool {
        let has_commands = self.link.channel.get().is_none_or(|channel| !channel.ring().is_drained());
        let can_wait = || !self.is_in_danger() && !self.cover.is_overdue();
        let others_work = || can_wait() && self.shared.working() > 0;
        has_commands || self.link.has_wishes() || others_work()
    }
}
