//! What a session is as data, and the data a session again: at another worker, if the client is moved there (`departure.rs`), or
//! at the next one, if this one dies while the client is covered (`cover.rs`).
//!
//! A session is data when the client is idle or waits for its turn: then all its work is done, no answer is due, its
//! memory is saved in the host store, and what is left of it fits into a file, a [`Checkpoint`], to which each kind of what the
//! client keeps gives its part ([`Saved`]). The command that waits for its turn goes along; those behind it stay in the ring.
//! Taking one ends nothing: the client can go on here.
//!
//! Limits: a client with variables that the driver placed is no data, nor one with texture or surface objects whose handles no other
//! GPU would give. One that shares memory or events with others becomes data together with them (`party.rs`).

mod account;
mod arrays;
mod code;
mod cover;
mod departure;
mod memory;
mod order;
mod party;
mod saved;
mod shared_memory;

pub(crate) use cover::Cover;

use crate::policy::reuse::Past;
use crate::state_file::{self, Pledge, Void};
use crate::worker::gpu::context_limits::ContextLimits;
use crate::worker::mailbox::{LinkUsage, Wish};
use crate::worker::memory::address_space::AddressSpace;
use crate::worker::memory::host_range::HostMemory;
use crate::worker::objects::array::Arrays;
use crate::worker::objects::event::ClientEvent;
use crate::worker::objects::graph::Graphs;
use crate::worker::objects::image::Images;
use crate::worker::objects::image_upload::Uploads;
use crate::worker::objects::kernel::Kernels;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::session::printing::Printing;
use crate::worker::session::residency::Residency;
use crate::worker::streams::Streams;
use crate::worker::work_time::micros;
use saved::Saved;
use std::os::fd::OwnedFd;
use std::time::Instant;
use torpor_proto::control::migration::Checkpoint;
use torpor_proto::control::worker::Attach;
use torpor_proto::error::CudaError;
use torpor_proto::ring::{Consumer, Record};

impl Session {
    /// What the client is, whose work is done and whose memory is saved. `None` if only this GPU's driver can place a part of it.
    ///
    /// # Errors
    /// [`Halt::Lost`], or [`Halt::Interrupted`].
    fn take_checkpoint(&mut self) -> Result<Option<Checkpoint>, Halt> {
        if self.images.fixed() > 0 {
            return Ok(None);
        }
        let (uploads, uploaded_bytes) = self.save::<Uploads>()?;
        Ok(Some(Checkpoint {
            streams: self.save::<Streams>()?,
            events: self.save::<ClientEvent>()?,
            images: self.save::<Images>()?,
            uploads,
            uploaded_bytes,
            kernels: self.save::<Kernels>()?,
            graphs: self.save::<Graphs>()?,
            segments: self.save::<AddressSpace>()?,
            arrays: self.save::<Arrays>()?,
            host_pieces: self.save::<HostMemory>()?,
            residency: self.save::<Residency>()?,
            waiting_command: Vec::new(),
            words_taken: self.words_taken(),
            counts: self.save::<LinkUsage>()?,
            load_wanted: self.link.wishes(Wish::Load),
            text: self.save::<Printing>()?,
            limits: self.save::<ContextLimits>()?,
            uses: self.save::<Past>()?,
            // Nothing is on its way, so that is where the last mark was.
            staged: self.link.channel.get().map_or(0, |channel| channel.staging().released()),
        }))
    }

    /// Takes up what the client was at another worker. Returns the command to begin with, if there is one.
    ///
    /// # Errors
    /// Why it cannot be served here, for people.
    pub(crate) fn resume(&mut self, file: OwnedFd, attach: &Attach) -> Result<Option<Record>, String> {
        let unreadable = |error| format!("its state cannot be read: {error}");
        let checkpoint = state_file::read(&file).map_err(unreadable)?;
        let mut command = match &checkpoint.waiting_command[..] {
            [] => None,
            words => Some(Record::from_words(words).map_err(|error| error.to_string())?),
        };
        let pledge = Pledge::of(&file).map_err(unreadable)?;
        // Its last worker may have been killed before it said so.
        if pledge.is_outgrown() || checkpoint.words_taken != self.words_taken() {
            let replay = self.plan_replay(&checkpoint, command.take(), &pledge.answers());
            self.replay = Some(replay.map_err(|why| format!("it was in a request: {why}"))?);
        }
        self.keep_cover(pledge);
        let load_wanted = checkpoint.load_wanted;
        self.restore_checkpoint(checkpoint)?;
        self.note_former(attach.link);
        // It may be less by now than what the client has.
        let limit_bytes = attach.memory_limit_bytes.min(self.shared.memory.limit_bytes());
        self.space.set_limit_bytes(limit_bytes.max(self.space.allocated_bytes()));
        if load_wanted {
            self.link.ask(Wish::Load);
        }
        self.tell_memory();
        if self.residency.shares {
            // Others may have what it has from now on.
            self.uncover(Void::Shares);
        }
        Ok(command)
    }

    /// Each kind after those that it needs.
    fn restore_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), String> {
        self.restore::<Streams>(checkpoint.streams)?;
        self.restore::<ClientEvent>(checkpoint.events)?;
        self.restore::<Images>(checkpoint.images)?;
        self.restore::<Uploads>((checkpoint.uploads, checkpoint.uploaded_bytes))?;
        self.restore::<Kernels>(checkpoint.kernels)?;
        self.restore::<Graphs>(checkpoint.graphs)?;
        self.restore::<AddressSpace>(checkpoint.segments)?;
        self.restore::<HostMemory>(checkpoint.host_pieces)?;
        self.restore::<Arrays>(checkpoint.arrays)?;
        self.restore::<Residency>(checkpoint.residency)?;
        self.restore::<LinkUsage>(checkpoint.counts)?;
        self.restore::<Printing>(checkpoint.text)?;
        self.restore::<ContextLimits>(checkpoint.limits)?;
        self.restore::<Past>(checkpoint.uses)
    }

    fn save<K: Saved>(&mut self) -> Result<K::State, Halt> {
        K::save(self)
    }

    fn restore<K: Saved>(&mut self, state: K::State) -> Result<(), String> {
        let began = Instant::now();
        K::restore(self, state)
            .map_err(|halt| format!("its {} cannot be made here: {}", K::NAME, CudaError::from(halt)))?;
        tracing::debug!(
            client = self.link.client,
            took_us = micros(began.elapsed()),
            "has its {} again",
            K::NAME
        );
        Ok(())
    }

    fn words_taken(&self) -> u64 {
        self.link.channel.get().map_or(0, |channel| Consumer::resume(channel.ring()).words_taken())
    }
}
