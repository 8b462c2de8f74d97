//! Moving a client to another worker: its session becomes data, and the data a session again.
//!
//! A session is given up when the client is idle or waits for its turn: then all its work is done, no answer is due, its
//! memory is saved in the host store, and what is left of it fits into a message ([`ClientState`]), each family's part made
//! and read beside the family. The command that waits for its turn goes along; those behind it stay in the ring.
//!
//! Limits: a client that was told the address of a global stays, since the driver chose that address.

use crate::chunk::CHUNK_BYTES;
use crate::worker::graph::Graphs;
use crate::worker::session::Session;
use crate::worker::shared::Wish;
use crate::worker::upload::Uploads;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::time::Duration;
use torpor_proto::control::Message;
use torpor_proto::control::migration::{ClientState, Counts, HostPiece, Segment};
use torpor_proto::control::worker::{Attach, NotReleased, from_worker};
use torpor_proto::error::CudaError;
use torpor_proto::mapping::{check_sealed, create_sealed};
use torpor_proto::ring::{Consumer, Record};

/// The longest state: more than the records of all graphs and the chunks of all memory that a client can have.
const MAX_STATE_BYTES: u64 = 2 << 30;

/// Why a client stays whose memory is still on the GPU.
const UNSAVED: &str = "its memory cannot be saved in the host store; the worker's log says why";

/// Between two looks at answers that are due.
const NAP: Duration = Duration::from_micros(10);

impl Session {
    /// Gives the client up for another worker, or says why not. Nothing of it runs and it does not have its turn.
    ///
    /// # Errors
    /// `CUDA_ERROR_DEINITIALIZED` if it is given up, or if the session is to end anyway; the context's.
    pub(super) fn depart(&mut self) -> Result<(), CudaError> {
        let data = self.become_data();
        match self.unless_refused(data)?.unwrap_or(Err(UNSAVED)) {
            Ok(state) => {
                self.released = Some(state);
                Err(CudaError::DEINITIALIZED)
            }
            Err(reason) => {
                self.refuse_release(reason);
                Ok(())
            }
        }
    }

    /// Tells the server that the client stays.
    pub(super) fn refuse_release(&self, reason: &str) {
        let reason = reason.to_owned();
        self.shared.tell(from_worker::Body::NotReleased(NotReleased { client: self.link.client, reason }));
    }

    /// The inner error: why the client cannot go.
    fn become_data(&mut self) -> Result<Result<ClientState, &'static str>, CudaError> {
        let Some(images) = self.images.save() else {
            return Ok(Err(
                "it was told the address of a module's global, which only this GPU's driver can give",
            ));
        };
        self.drain()?;
        while !self.pending.is_empty() {
            if self.is_interrupted() {
                return Err(CudaError::DEINITIALIZED);
            }
            self.poll()?;
            std::thread::sleep(NAP);
        }
        self.evict()?;
        if self.space.resident_bytes() > 0 {
            return Ok(Err(UNSAVED));
        }
        let (uploads, uploaded_bytes) = self.images.uploads.save();
        let usage = &self.link.usage;
        let counts = Counts {
            commands: usage.commands.load(Ordering::Relaxed),
            requests: usage.requests.load(Ordering::Relaxed),
            hits: usage.hits.load(Ordering::Relaxed),
            swaps: usage.swaps.load(Ordering::Relaxed),
            failures: self.failures,
        };
        Ok(Ok(ClientState {
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
            words_taken: 0,
            counts: Some(counts),
            load_wanted: self.link.wishes(Wish::Load),
        }))
    }

    /// The state as it is handed on. If that cannot be, the client stays, and the command is returned that was taken from
    /// the ring and not executed.
    pub(super) fn write_state(&mut self) -> Result<OwnedFd, Option<Record>> {
        let mut state = self.released.take().unwrap_or_default();
        state.words_taken = self.words_taken();
        let written = || {
            let bytes = state.encode_to_vec();
            let file = File::from(create_sealed("torpor-client", bytes.len() as u64)?);
            file.write_all_at(&bytes, 0)?;
            Ok(file.into())
        };
        written().map_err(|error: io::Error| {
            tracing::error!(client = self.link.client, "the client's state cannot be written: {error}");
            self.refuse_release("its state cannot be written; the worker's log says why");
            Record::from_words(&state.waiting_command).ok()
        })
    }

    /// Takes up what the client was at another worker. Returns the command to begin with, if there is one.
    ///
    /// # Errors
    /// Why it cannot be served here, for people.
    pub(super) fn resume(&mut self, file: OwnedFd, attach: &Attach) -> Result<Option<Record>, String> {
        let state = read(file).map_err(|error| format!("its state cannot be read: {error}"))?;
        if state.words_taken != self.words_taken() {
            return Err("commands of it were executed since its state was written".to_owned());
        }
        let command = match &state.waiting_command[..] {
            [] => None,
            words => Some(Record::from_words(words).map_err(|error| error.to_string())?),
        };
        let failed =
            |what: &'static str| move |error: CudaError| format!("its {what} cannot be here: {error}");
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
            self.space.host.lock(address, bytes).map_err(failed("page-locked memory"))?;
        }
        self.link.usage.pinned_bytes.store(self.space.host.locked_bytes(), Ordering::Relaxed);
        self.residency.restore(state.residency.unwrap_or_default());
        self.restore_counts(state.counts.unwrap_or_default());
        if state.load_wanted {
            self.link.ask(Wish::Load);
        }
        self.tell_memory();
        Ok(command)
    }

    /// The limit may be less by now than what the client has, but not the GPU's.
    fn restore_segments(&mut self, segments: Vec<Segment>, limit_bytes: u64) -> Result<(), CudaError> {
        self.space.set_limit_bytes(self.shared.memory.limit_bytes());
        for Segment { address, chunks } in segments {
            self.space.allocate(address, chunks.len() as u64 * CHUNK_BYTES)?;
            if let Some((_, segment)) = self.space.segment_of_mut(address) {
                segment.restore(chunks);
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
        self.failures = counts.failures;
    }

    fn words_taken(&self) -> u64 {
        self.link.channel.get().map_or(0, |channel| Consumer::resume(channel.ring()).words_taken())
    }
}

fn read(file: OwnedFd) -> io::Result<ClientState> {
    let file = File::from(file);
    let bytes = file.metadata()?.len();
    check_sealed(&file, bytes)?;
    if bytes > MAX_STATE_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut encoded = vec![0; bytes as usize];
    file.read_exact_at(&mut encoded, 0)?;
    ClientState::decode(encoded.as_slice()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
