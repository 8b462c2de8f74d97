//! Shared memory: segments that other clients of the function have, too, as one of their sessions deals with them.
//!
//! A session maps them before anything of its client runs, which keeps them on the GPU until it leaves; the first one to come
//! brings them, the last one to leave saves them. They are brought whole: what their words point to is another client's to know.

use crate::chunk::CHUNK_BYTES;
use crate::driver::PhysicalMemory;
use crate::worker::gpu::host_store::Chunk;
use crate::worker::gpu::ipc::Secret;
use crate::worker::gpu::ipc::segment::{Found, SharedSegment};
use crate::worker::gpu::ipc::tenancy::NotJoined;
use crate::worker::memory::segment::{Backing, ClientSegment, Membership};
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::session::parking::Need;
use crate::worker::session::shortage::Room;
use std::sync::Arc;
use torpor_proto::control::migration::Origin;
use torpor_proto::error::CudaError;

impl Session {
    /// Makes a segment one that other clients of the function may import.
    ///
    /// # Errors
    /// [`Halt::Refused`] with `CUDA_ERROR_INVALID_VALUE` if there is none, or for variables of an image; as
    /// [`Self::activate`].
    pub(crate) fn export_segment(&mut self, home: u64) -> Result<Secret, Halt> {
        let segment = self.space.segment_of(home).filter(|&(start, _)| start == home);
        let (_, segment) = segment.ok_or(CudaError::INVALID_VALUE)?;
        if let Some(membership) = &segment.shared {
            return Ok(membership.segment.secret());
        }
        let origin = if segment.views.is_some() { Origin::Object } else { Origin::Allocation };
        if origin == Origin::Allocation && !self.space.is_allocation(home) {
            return Err(CudaError::INVALID_VALUE.into());
        }
        let secret = Secret::new()?;
        self.residency.shares = true;
        self.activate()?;
        // Others map what is there; what is on its way would be there for this client alone.
        self.bring_whole()?;
        self.settle_setup()?;
        self.clear_object(home)?;
        let (client, memory) = (self.link.client, self.shared.memory.clone());
        let Some((_, segment)) = self.space.segment_of_mut(home) else {
            return Err(CudaError::INVALID_VALUE.into());
        };
        let piece = segment.backing.as_mut().and_then(Backing::share);
        let chunks = std::mem::take(&mut segment.chunks);
        let shared = SharedSegment::new(secret, segment.bytes, &memory, (client, client), piece, chunks);
        self.shared.ipc.segments.add(secret, &self.link.function, &shared);
        segment.shared = Some(Membership::new(shared, client, origin));
        self.tell_memory();
        Ok(secret)
    }

    /// Makes what another client exported an object of this one, which is mapped nowhere yet.
    ///
    /// # Errors
    /// [`Halt::Refused`] with `CUDA_ERROR_INVALID_VALUE` if there is no such export, it is of another length, or this client has it;
    /// [`Halt::Lost`], [`Halt::Interrupted`].
    pub(crate) fn import_segment(
        &mut self,
        home: u64,
        bytes: u64,
        (secret, exporter): (Secret, u64),
    ) -> Result<(), Halt> {
        self.space.check_view(home, bytes)?;
        let segment = self.find_export(|session| &session.shared.ipc.segments, secret, exporter)?;
        if segment.bytes() != bytes {
            return Err(CudaError::INVALID_VALUE.into());
        }
        self.residency.shares = true;
        self.bring_whole()?;
        self.settle_setup()?;
        // Chunks that it has not referred to may be in files, and a lease says that none of its are.
        self.give_lease_back();
        let client = self.link.client;
        match segment.join(client, &self.shared.store) {
            Ok(()) => {}
            Err(NotJoined::Refused) => return Err(CudaError::INVALID_VALUE.into()),
            Err(NotJoined::Busy) => return Err(self.parking.park(Need::Others)),
        }
        let membership = Membership::new(segment, client, Origin::Import);
        Ok(self.space.import(home, ClientSegment::imported(membership))?)
    }

    /// Maps all shared segments that the client can reach, or all of them if the operator wants it, as far as there is room.
    ///
    /// # Errors
    /// As [`Self::swap_in`].
    pub(crate) fn enter_shared(&mut self) -> Result<Room, Halt> {
        let is_missing = |segment: &ClientSegment| {
            let is_wanted = segment.is_reachable() || self.residency.is_loading();
            segment.shared.is_some() && segment.backing.is_none() && is_wanted
        };
        let missing = self.space.segments().filter(|(_, segment)| is_missing(segment));
        for home in missing.map(|(home, _)| home).collect::<Vec<_>>() {
            let entered = self.enter_segment(home)?;
            if entered != Room::Granted {
                return Ok(entered);
            }
        }
        Ok(Room::Granted)
    }

    /// Maps a shared segment, and brings it if it is not there. Results as [`Self::enter_shared`]'s.
    pub(crate) fn enter_segment(&mut self, home: u64) -> Result<Room, Halt> {
        let Some(segment) = self.shared_segment(home) else { return Ok(Room::Granted) };
        let client = self.link.client;
        loop {
            match segment.enter(client) {
                Found::Resident(piece) => {
                    let backing = Backing::shared(piece, &self.shared.memory, client);
                    let mapped = self.put_shared(home, backing);
                    if mapped.is_err() {
                        segment.let_go(client);
                    }
                    return mapped.map(|()| Room::Granted);
                }
                Found::Busy => return Ok(Room::Later),
                Found::Absent => {
                    let reserved = self.try_reserve(segment.bytes())?;
                    if reserved != Room::Granted {
                        return Ok(reserved);
                    }
                    let Some(chunks) = segment.begin_bringing(client) else {
                        self.shared.memory.unreserve(client, segment.bytes());
                        continue;
                    };
                    let brought = self.bring_shared(home, chunks.clone());
                    let (chunks, brought) = match brought {
                        Ok((chunks, piece)) => (chunks, Ok(piece)),
                        Err(halt) => (chunks, Err(halt)),
                    };
                    segment.end_bringing(client, chunks, brought.as_ref().ok().cloned());
                    return brought.map(|_| Room::Granted);
                }
            }
        }
    }

    /// Brings a shared segment, whole, into memory that is reserved. Returns its contents as they are in the store now.
    fn bring_shared(
        &mut self,
        home: u64,
        chunks: Vec<Chunk>,
    ) -> Result<(Vec<Chunk>, Arc<PhysicalMemory>), Halt> {
        let (client, memory) = (self.link.client, self.shared.memory.clone());
        let bytes = chunks.len() as u64 * CHUNK_BYTES;
        // Nothing here waits for anybody's room: others may wait for this one.
        let piece = Arc::new(memory.take(bytes)?);
        let is_stored = chunks.iter().any(|chunk| chunk.stored().is_some());
        self.put_shared(home, Backing::shared(piece.clone(), &memory, client))?;
        if let Some((_, segment)) = self.space.segment_of_mut(home) {
            segment.chunks = chunks;
        }
        // Where another client has left it, whatever this one was told last.
        self.residency.lease_lost |= is_stored;
        let filled = self.post_contents(home).and_then(|_| self.settle_setup());
        let chunks = self.space.segment_of_mut(home).map(|(_, segment)| std::mem::take(&mut segment.chunks));
        match filled {
            Ok(()) => self.residency.has_brought_shared |= is_stored,
            Err(_) => self.unback(home)?,
        }
        filled.map(|()| (chunks.unwrap_or_default(), piece))
    }

    /// Puts a shared segment's memory where the client reaches it.
    fn put_shared(&mut self, home: u64, mut backing: Backing) -> Result<(), Halt> {
        let Some((_, segment)) = self.space.segment_of_mut(home) else {
            return Err(CudaError::UNKNOWN.into());
        };
        segment.places(home).into_iter().try_for_each(|place| backing.map(place))?;
        segment.backing = Some(backing);
        Ok(())
    }

    /// Before an eviction: takes what this client has to save of shared segments, which others leave alone until
    /// [`Self::end_leaving_shared`]. Returns their homes; `None` if the driver refuses to map one.
    pub(crate) fn begin_leaving_shared(&mut self) -> Result<Option<Vec<u64>>, Halt> {
        let mut saving = Vec::new();
        let homes: Vec<u64> = self.space.segments().map(|(home, _)| home).collect();
        for home in homes {
            let Some(shared) = self.shared_segment(home) else { continue };
            let Some((piece, chunks)) = shared.begin_leaving(self.link.client, &self.shared.store) else {
                continue;
            };
            let Some((_, segment)) = self.space.segment_of_mut(home) else { continue };
            segment.chunks = chunks;
            let is_mapped = segment.backing.is_some();
            saving.push(home);
            if !is_mapped {
                // It was left to this client, which had unmapped it.
                let mapped =
                    self.put_shared(home, Backing::shared(piece, &self.shared.memory, self.link.client));
                if self.unless_refused(mapped)?.is_none() {
                    self.end_leaving_shared(&saving, false);
                    return Ok(None);
                }
            }
        }
        Ok(Some(saving))
    }

    /// After it: what was to be saved is, and the client has unmapped everything; or all stays.
    pub(crate) fn end_leaving_shared(&mut self, saving: &[u64], is_saved: bool) {
        let (client, store) = (self.link.client, &self.shared.store);
        for (home, segment) in self.space.segments_mut() {
            let Some(membership) = &segment.shared else { continue };
            if saving.contains(&home) {
                let chunks = std::mem::take(&mut segment.chunks);
                membership.segment.end_saving(client, chunks, is_saved, store);
            } else if is_saved {
                membership.segment.let_go(client);
            }
        }
    }

    /// Before a shared segment is given up: nobody moves it, and the store has nothing of it for this client any more.
    ///
    /// # Errors
    /// [`Halt::Parked`] while a session does move it.
    pub(crate) fn give_up_shared(&mut self, home: u64) -> Result<(), Halt> {
        let Some(segment) = self.shared_segment(home) else { return Ok(()) };
        if segment.give_up(self.link.client, &self.shared.store) {
            Ok(())
        } else {
            Err(self.parking.park(Need::Others))
        }
    }

    /// Clears an object that was not mapped yet: others may be the first to do that.
    fn clear_object(&mut self, home: u64) -> Result<(), Halt> {
        let found = self.space.segment_of_mut(home);
        let Some((_, ClientSegment { bytes, backing: Some(backing), .. })) = found else { return Ok(()) };
        if backing.is_filled {
            return Ok(());
        }
        backing.map(home)?;
        backing.is_filled = true;
        let bytes = *bytes as usize;
        // SAFETY: an object of this length was just mapped here.
        unsafe { self.streams.enter_setup().fill(home, (0, bytes, 1), 0, 1)? };
        self.settle_setup()
    }

    fn shared_segment(&self, home: u64) -> Option<Arc<SharedSegment>> {
        let (_, segment) = self.space.segment_of(home).filter(|&(start, _)| start == home)?;
        segment.shared.as_ref().map(|membership| membership.segment.clone())
    }

    /// Waits for the worker's own work for the client.
    fn settle_setup(&mut self) -> Result<(), Halt> {
        let fence = self.streams.fence_setup()?;
        self.wait_for(Vec::from_iter(fence))
    }
}
