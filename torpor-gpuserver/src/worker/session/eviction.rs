//! Eviction: taking an idle client's memory off the GPU, but for arrays that cannot leave.

use crate::chunk::CHUNK_BYTES;
use crate::state_file::Void;
use crate::worker::mailbox::Wish;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::session::snapshot::Snapshot;
use crate::worker::work_time::micros;
use std::sync::atomic::Ordering;
use std::time::Instant;
use torpor_proto::control::event::Evicted;
use torpor_proto::control::worker::{Writeback, happened};

impl Session {
    /// The first request is over: what the client has now is what every later request begins with, if its writes are
    /// dropped.
    pub(crate) fn settle(&mut self) -> Result<(), Halt> {
        if self.residency.writeback == Writeback::Never && !self.residency.settled {
            self.residency.settled = self.snapshot()?.is_some();
            self.uncover(Void::Settled);
        }
        Ok(())
    }

    /// Takes the client's memory off the GPU, unless it cannot be saved now. What others have mapped, too, stays there as theirs.
    pub(crate) fn evict(&mut self) -> Result<(), Halt> {
        // What another client has unmapped meanwhile has become this one's again.
        while self.has_memory() {
            let saving = self.begin_leaving_shared()?;
            let snapshot = if saving.is_some() { self.snapshot() } else { Ok(None) };
            let is_saved = matches!(snapshot, Ok(Some(_)));
            let bytes = self.space.resident_bytes();
            let began = Instant::now();
            if is_saved {
                // Physical memory goes back as the backings are dropped.
                self.space.segments_mut().for_each(|(_, segment)| segment.backing = None);
            }
            let unmap_us = micros(began.elapsed());
            self.end_leaving_shared(&saving.unwrap_or_default(), is_saved);
            let Some(snapshot) = snapshot? else {
                self.stay_unsaved();
                return Ok(());
            };
            self.tell_evicted(bytes, snapshot, unmap_us);
            self.tell_memory();
        }
        if !self.evict_arrays()? {
            self.stay_unsaved();
        }
        Ok(())
    }

    /// Saves all of the client's memory, as [`Self::evict`] does, and leaves on the GPU what nobody shares: it is given back when
    /// the client is gone. False if it cannot be saved now.
    pub(crate) fn save_whole(&mut self) -> Result<bool, Halt> {
        if !self.save_segments()? {
            return Ok(false);
        }
        let is_saved = self.save_arrays()?;
        if !is_saved {
            self.stay_unsaved();
        }
        Ok(is_saved)
    }

    fn save_segments(&mut self) -> Result<bool, Halt> {
        if self.space.segments().any(|(_, segment)| segment.shared.is_some()) {
            self.evict()?;
            return Ok(self.space.resident_bytes() == 0);
        }
        if !self.has_memory() {
            return Ok(true);
        }
        let bytes = self.space.resident_bytes();
        let Some(snapshot) = self.snapshot()? else {
            self.stay_unsaved();
            return Ok(false);
        };
        self.tell_evicted(bytes, snapshot, 0);
        Ok(true)
    }

    fn has_memory(&self) -> bool {
        self.space.segments().any(|(_, segment)| segment.is_resident() || segment.backing.is_some())
    }

    fn stay_unsaved(&self) {
        self.shared.memory.set_stuck(self.link.client);
        // Who asked again meanwhile has its answer, too.
        self.link.fulfil(Wish::Evict);
    }

    fn tell_evicted(&self, bytes: u64, snapshot: Snapshot, unmap_us: u64) {
        let Snapshot { digested_bytes, digest_us, copied_back_bytes, copy_us } = snapshot;
        tracing::debug!(
            client = self.link.client,
            function = %self.link.function,
            bytes,
            digested_bytes,
            digest_us,
            copied_back_bytes,
            copy_us,
            unmap_us,
            "evicted"
        );
        self.shared.tell_followers(self.link.client, || {
            happened::What::Evicted(Evicted {
                // The server knows which it is.
                gpu: 0,
                bytes,
                digested_bytes,
                digest_us,
                copied_back_bytes,
                copy_us,
                unmap_us,
            })
        });
    }

    /// Notes how much memory the client has, and where. What others may have too is not among it, but as allocated
    /// ([`SharedSegment::usage`](crate::worker::gpu::ipc::segment::SharedSegment::usage)).
    pub(crate) fn tell_memory(&self) {
        let usage = &self.link.usage;
        let here_bytes = self.space.resident_alone_bytes() + self.arrays.here_bytes.get();
        usage.memory_bytes.store(here_bytes, Ordering::Relaxed);
        usage.array_bytes.store(self.space.array_bytes.get(), Ordering::Relaxed);
        usage.arrays.store(self.arrays.count(), Ordering::Relaxed);
        usage.allocated_bytes.store(self.space.allocated_bytes(), Ordering::Relaxed);
        let stored = self.space.segments().flat_map(|(_, segment)| segment.stored()).count();
        let stored = stored + self.arrays.stored.len();
        usage.host_bytes.store(stored as u64 * CHUNK_BYTES, Ordering::Relaxed);
        let here = self.space.segments().filter(|(_, segment)| segment.is_filled());
        let unsaved =
            here.flat_map(|(_, segment)| &segment.chunks).filter(|chunk| chunk.may_need_room()).count();
        usage.unsaved_bytes.store(unsaved as u64 * CHUNK_BYTES, Ordering::Relaxed);
    }
}
