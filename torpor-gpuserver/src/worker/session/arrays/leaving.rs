//! What is in a client's arrays is saved in the host store, and they leave the GPU. Who changed what in an array nobody knows, for it has
//! no address that could be digested: all are saved if the client has had its turn since the last time.

use crate::chunk::CHUNK_BYTES;
use crate::driver::{Box3d, End, Pitched, Place as Side};
use crate::state_file::Void;
use crate::worker::gpu::host_store::{Place, Room, StoreError};
use crate::worker::objects::array::{ClientArray, Here};
use crate::worker::objects::array_layout::{Piece, pieces};
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::work_time::micros;
use std::rc::Rc;
use std::time::Instant;
use torpor_proto::error::CudaError;

/// How much is saved ahead of time before others that have work are looked for.
const AHEAD_BYTES: u64 = 16 << 20;

impl Session {
    /// Saves what is in the arrays, if it is not saved. The client's work is done. False if it cannot be saved now.
    ///
    /// # Errors
    /// [`Halt::Lost`], or [`Halt::Interrupted`].
    pub(crate) fn save_arrays(&mut self) -> Result<bool, Halt> {
        self.save_arrays_in(Room::Made)
    }

    /// As [`Self::save_arrays`], if nobody else needs the GPU or the host store's room.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn save_arrays_ahead(&mut self) -> Result<bool, Halt> {
        self.save_arrays_in(Room::Spare)
    }

    fn save_arrays_in(&mut self, room: Room) -> Result<bool, Halt> {
        if !self.arrays.have_changed {
            return Ok(true);
        }
        let saved = self.try_save_arrays(room);
        let saved = self.unless_refused(saved)?.unwrap_or(false);
        self.tell_memory();
        Ok(saved)
    }

    fn try_save_arrays(&mut self, room: Room) -> Result<bool, Halt> {
        self.drain()?;
        let (began, mut end, mut plan) = (Instant::now(), 0, Vec::new());
        for (_, array) in self.arrays.all() {
            let (pieces, next) = pieces(&array.shape, end);
            plan.push((array, end, pieces));
            end = next;
        }
        if room == Room::Made {
            // Nobody needs more room than its memory has, so there is one generation alone.
            self.forget_stored(Void::Leaving);
            self.uncover(Void::Leaving);
        }
        let places = match self.reserve_for_arrays(end.div_ceil(CHUNK_BYTES) as usize, room) {
            Ok(places) => places,
            Err(StoreError::Interrupted) => return Err(Halt::Interrupted),
            Err(error) => {
                self.end_reservation();
                if room == Room::Made {
                    self.store_failed(&error);
                }
                return Ok(false);
            }
        };
        let copied = self.copy_arrays(&plan, &places, room);
        if copied != Ok(true) {
            // Whoever gets the places next must not find copies under way to them.
            self.wait_for_setup()?;
            // No state tells of them.
            self.shared.store.release(self.link.client, &chunks(&places));
            self.end_reservation();
            return copied;
        }
        plan.iter().for_each(|(array, start, _)| array.start.set(Some(*start)));
        let before = std::mem::replace(&mut self.arrays.stored, places);
        self.supersede(chunks(&before));
        self.arrays.have_changed = false;
        self.end_reservation();
        let (client, took_us) = (self.link.client, micros(began.elapsed()));
        tracing::debug!(client, function = %self.link.function, bytes = end, took_us, "saved its arrays");
        Ok(true)
    }

    /// What is stored is given up: what is on the GPU is all that there is.
    pub(super) fn forget_stored(&mut self, why: Void) {
        let stored = std::mem::take(&mut self.arrays.stored);
        self.arrays.all().iter().for_each(|(_, array)| array.start.set(None));
        self.release(&chunks(&stored), why);
    }

    fn reserve_for_arrays(&mut self, count: usize, room: Room) -> Result<Vec<Place>, StoreError> {
        let reserved = self.reserve_places(count, room);
        if room == Room::Spare
            && matches!(reserved, Err(StoreError::Refused(_)))
            && !self.residency.superseded.is_empty()
        {
            // There is no room for two generations.
            self.uncover(Void::NoRoom);
            return self.reserve_places(count, room);
        }
        reserved
    }

    /// False if others need the GPU meanwhile.
    fn copy_arrays(
        &mut self,
        plan: &[(Rc<ClientArray>, u64, Vec<Piece>)],
        places: &[Place],
        room: Room,
    ) -> Result<bool, Halt> {
        let mut posted_bytes = 0;
        for (array, _, pieces) in plan {
            let here = array.here()?;
            for piece in pieces {
                let (store, array) = (in_store(self, places, piece)?, in_array(&here, piece));
                // SAFETY: the piece lies in the array, which stays until the wait below is over or the client's streams are idle;
                // the place is page-locked and nobody else's.
                unsafe { self.streams.enter_setup().copy_box(store, array, extent(piece))? };
                posted_bytes += piece.bytes();
                if room == Room::Spare && posted_bytes >= AHEAD_BYTES {
                    posted_bytes = 0;
                    let fence = self.streams.fence_setup()?;
                    self.wait_for(Vec::from_iter(fence))?;
                    if self.is_disturbed() {
                        return Ok(false);
                    }
                }
            }
        }
        let fence = self.streams.fence_setup()?;
        self.wait_for(Vec::from_iter(fence))?;
        Ok(true)
    }

    /// Saves the arrays and takes them off the GPU, unless they stay there. False if they cannot be saved now.
    ///
    /// # Errors
    /// As [`Self::save_arrays`].
    pub(crate) fn evict_arrays(&mut self) -> Result<bool, Halt> {
        if self.arrays.here_bytes.get() == 0 || self.keeps_arrays() {
            return Ok(true);
        }
        if !self.save_arrays()? {
            return Ok(false);
        }
        self.take_arrays_away();
        Ok(true)
    }

    /// Takes the arrays off the GPU, which has done with them; handles of objects over them are kept.
    pub(super) fn take_arrays_away(&mut self) {
        let over_arrays = self.arrays.objects.values_mut().filter(|object| object.over.is_some());
        over_arrays.for_each(|object| object.handle.empty());
        self.arrays.all().iter().for_each(|(_, array)| array.set_here(None));
        self.note_arrays();
    }
}

fn chunks(places: &[Place]) -> Vec<u64> {
    places.iter().map(|place| place.chunk).collect()
}

/// Where a piece is in the host store.
pub(super) fn in_store(
    session: &Session,
    places: &[Place],
    piece: &Piece,
) -> Result<End<'static>, CudaError> {
    let (chunk, offset) = piece.place();
    let place = places.get(chunk).and_then(|place| session.shared.store.address(place.slot));
    let address = place.ok_or(CudaError::OPERATING_SYSTEM)? + offset;
    let (pitch, height) = (piece.row_bytes as usize, piece.rows as usize);
    Ok(End::Memory(Pitched { place: Side::Host, address, pitch, height }))
}

/// Where it is in its array.
pub(super) fn in_array<'a>(here: &'a Here, piece: &Piece) -> End<'a> {
    End::Array {
        array: &here.array,
        level: piece.level,
        x_bytes: 0,
        y: piece.y as usize,
        z: piece.z as usize,
    }
}

/// How much a piece is.
pub(super) fn extent(piece: &Piece) -> Box3d {
    Box3d { width_bytes: piece.row_bytes as usize, height: piece.rows as usize, depth: piece.slices as usize }
}
