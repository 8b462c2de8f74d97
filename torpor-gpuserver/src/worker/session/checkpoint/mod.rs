//! What a session is as data, and the data a session again: at another worker, if the client is moved there (`departure.rs`), or
//! at the next one, if this one dies while the client is covered (`cover.rs`).
//!
//! A session is data when the client is idle or waits for its turn: then all its work is done, no answer is due, its
//! memory is saved in the host store, and what is left of it fits into a file ([`ClientState`]), each family's part made
//! and read beside the family. The command that waits for its turn goes along; those behind it stay in the ring.
//!
//! Limits: a client with variables that the driver placed is no data, nor one with arrays, texture or surface objects, nor one
//! that shares memory with others.

mod cover;
mod departure;
mod events;
mod shared_memory;

pub(crate) use cover::Cover;

use crate::chunk::CHUNK_BYTES;
use crate::state_file;
use crate::worker::mailbox::Wish;
use crate::worker::objects::graph::Graphs;
use crate::worker::objects::image_upload::Uploads;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use torpor_proto::control::migration::{ClientState, Counts, HostPiece, Limit, Segment};
use torpor_proto::control::worker::Attach;
use torpor_proto::error::CudaError;
use torpor_proto::ring::{Consumer, Record};

impl Session {
    /// What the client is, whose work is done and whose memory is saved. `None` if only this GPU's driver can place a part of it.
    ///
    /// # Errors
    /// [`Halt::Lost`], or [`Halt::Interrupted`].
    fn client_state(&mut self) -> Result<Option<ClientState>, Halt> {
        let Some(images) = self.images.save() else { return Ok(None) };
        let (uploads, uploaded_bytes) = self.images.uploads.save();
        let usage = &self.link.usage;
        let counts = Counts {
            commands: usage.commands.load(Ordering::Relaxed),
            requests: usage.requests.load(Ordering::Relaxed),
            hits: usage.hits.load(Ordering::Relaxed),
            swaps: usage.swaps.load(Ordering::Relaxed),
            failures: self.failures,
        };
        Ok(Some(ClientState {
            streams: self.streams.save(),
            events: self.save_events()?,
            images,
            uploads,
            uploaded_bytes,
            kernels: self.kernels.save(),
            graphs: self.graphs.save(),
            segments: self.space.segments().map(|(address, segment)| segment.save(address)).collect(),
            host_pieces: self.space.host.save(),
            residency: Some(self.residency.save()),
            waiting_command: Vec::new(),
            words_taken: self.words_taken(),
            counts: Some(counts),
            load_wanted: self.link.wishes(Wish::Load),
            text: self.printing.save(),
            limits: self.shared.limits.save(self.link.client),
        }))
    }

    /// Takes up what the client was at another worker. Returns the command to begin with, if there is one.
    ///
    /// # Errors
    /// Why it cannot be served here, for people.
    pub(crate) fn resume(&mut self, file: OwnedFd, attach: &Attach) -> Result<Option<Record>, String> {
        let unreadable = |error| format!("its state cannot be read: {error}");
        let state = state_file::read(&file).map_err(unreadable)?;
        if state.words_taken != self.words_taken() {
            return Err("commands of it were executed since its state was written".to_owned());
        }
        let command = match &state.waiting_command[..] {
            [] => None,
            words => Some(Record::from_words(words).map_err(|error| error.to_string())?),
        };
        for stream in &state.streams {
            self.streams.declare(stream.id, stream.blocking, stream.priority).map_err(failed("streams"))?;
        }
        self.restore_events(state.events).map_err(failed("events"))?;
        self.restore_images(state.images).map_err(failed("images"))?;
        self.images.uploads =
            Uploads::restore(state.uploads, state.uploaded_bytes).map_err(failed("images"))?;
        self.restore_kernels(state.kernels).map_err(failed("kernels"))?;
        self.graphs = Graphs::restore(state.graphs).map_err(failed("graphs"))?;
        self.restore_segments(state.segments, attach.memory_limit_bytes).map_err(failed("device memory"))?;
        for HostPiece { address, bytes } in state.host_pieces {
            self.lock_host(address, bytes).map_err(failed("page-locked memory"))?;
        }
        self.residency.restore(state.residency.unwrap_or_default());
        self.restore_counts(state.counts.unwrap_or_default());
        self.restore_text(state.text);
        for Limit { limit, value } in state.limits {
            let (shared, client) = (&self.shared, self.link.client);
            shared.limits.raise(&shared.device, client, limit, value).map_err(failed("context limits"))?;
        }
        if state.load_wanted {
            self.link.ask(Wish::Load);
        }
        self.tell_memory();
        self.keep_cover(&file).map_err(unreadable)?;
        if self.residency.shares {
            // Others may have what it has from now on.
            self.uncover();
        }
        Ok(command)
    }

    /// The limit may be less by now than what the client has, but not the GPU's.
    fn restore_segments(&mut self, segments: Vec<Segment>, limit_bytes: u64) -> Result<(), CudaError> {
        self.space.set_limit_bytes(self.shared.memory.limit_bytes());
        for Segment { address, chunks, object, shared } in segments {
            self.space.allocate(address, chunks.len() as u64 * CHUNK_BYTES)?;
            if let Some(object) = object {
                self.space.set_views(address, object.views);
            }
            if let Some((_, segment)) = self.space.segment_of_mut(address) {
                segment.restore(chunks);
            }
            if let Some(shared) = shared {
                self.restore_shared(address, &shared)?;
            }
        }
        let limit_bytes = limit_bytes.min(self.shared.memory.limit_bytes());
        self.space.set_limit_bytes(limit_bytes.max(self.space.allocated_bytes()));
        Ok(())
    }

    fn restore_counts(&mut self, counts: Counts) {
        let usage = &self.link.usage;
        usage.commands.store(counts.commands, Ordering::Relaxed);
        usage.requests.store(counts.requests, Ordering::Relaxed);
        usage.hits.store(counts.hits, Ordering::Relaxed);
        usage.swaps.store(counts.swaps, Ordering::Relaxed);
        self.link.told.came(usage.counts());
        self.failures = counts.failures;
    }

    fn words_taken(&self) -> u64 {
        self.link.channel.get().map_or(0, |channel| Consumer::resume(channel.ring()).words_taken())
    }
}

/// Says what of a client cannot be here.
fn failed<E: Into<CudaError>>(what: &str) -> impl Fn(E) -> String {
    move |error| format!("its {what} cannot be here: {}", error.into())
}
