//! Arrays come back to the GPU: they are made anew, in memory that was reserved for them, what was in them is copied, and objects get their
//! handles.

use super::leaving::{extent, in_array, in_store};
use crate::driver::Array;
use crate::worker::gpu::memory::taken::TakenBytes;
use crate::worker::objects::array::{ClientArray, Here};
use crate::worker::objects::array_layout::pieces;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::work_time::micros;
use std::rc::Rc;
use std::time::Instant;
use torpor_proto::error::CudaError;

/// Reserved memory of arrays that are to come; given up when dropped.
type Rooms = Vec<(Rc<ClientArray>, TakenBytes)>;

impl Session {
    /// How much memory arrays need that are not on the GPU.
    pub(crate) fn away_bytes(&self) -> u64 {
        self.space.array_bytes.get() - self.arrays.here_bytes.get()
    }

    /// What was just reserved for arrays that are not here.
    pub(in crate::worker::session) fn rooms_for_arrays(&self) -> Rooms {
        let all = self.arrays.all().into_iter().map(|(_, array)| array);
        let room = |array: Rc<ClientArray>| {
            let (memory, bytes) = (&self.shared.memory, array.shape.bytes());
            let taken = TakenBytes::of_reserved(memory, self.link.client, bytes, &self.arrays.here_bytes);
            (array, taken)
        };
        all.filter(|array| !array.is_here()).map(room).collect()
    }

    /// Makes what is not here. The client's memory is there.
    ///
    /// # Errors
    /// The driver's, or that the store does not have the contents: none of the arrays is here then.
    pub(in crate::worker::session) fn bring_arrays(&mut self, rooms: Rooms) -> Result<(), Halt> {
        let (began, count) = (Instant::now(), rooms.len());
        let brought = self.try_bring_arrays(rooms);
        if brought.is_err() && count > 0 {
            self.wait_for_setup()?;
            self.take_arrays_away();
        }
        self.note_arrays();
        if brought.is_ok() {
            let (client, took_us) = (self.link.client, micros(began.elapsed()));
            tracing::debug!(client, function = %self.link.function, arrays = count, took_us, "brought its arrays");
        }
        brought
    }

    fn try_bring_arrays(&mut self, rooms: Rooms) -> Result<(), Halt> {
        if !rooms.is_empty() {
            self.renew_lease().map_err(|error| self.store_failed(&error))?;
        }
        for (array, taken) in rooms {
            let start = array.start.get().ok_or(CudaError::OPERATING_SYSTEM)?;
            let made = self.shared.memory.make(|| Array::new(&self.shared.device, &array.made))?;
            array.set_here(Some(Here { array: made, taken }));
            let here = array.here()?;
            for piece in pieces(&array.shape, start).0 {
                let (store, array) = (in_store(self, &self.arrays.stored, &piece)?, in_array(&here, &piece));
                // SAFETY: the piece lies in the array, which stays until the client's streams are idle; the place is page-locked, and
                // nobody writes it while the client refers to it.
                unsafe { self.streams.enter_setup().copy_box(array, store, extent(&piece))? };
            }
        }
        let fence = self.streams.fence_setup()?;
        self.wait_for(Vec::from_iter(fence))?;
        let device = self.shared.device.clone();
        // In the order in which the driver gives them.
        let mut objects: Vec<_> = self.arrays.objects.values_mut().collect();
        objects.sort_unstable_by_key(|object| object.handle.number());
        for object in objects {
            let here = object.over.as_ref().map(|over| over.here()).transpose()?;
            let (recipe, handle) = (&object.recipe, &mut object.handle);
            if let Some((address, bytes)) = recipe.memory()?
                && self.space.locate(address, bytes).is_err()
            {
                // The program has unmapped or freed what it is over; perhaps it maps it again.
                continue;
            }
            if let Err(error) = handle.fill(|| recipe.make(&device, here.as_deref())) {
                let (client, handle) = (self.link.client, handle.number());
                tracing::error!(client, handle, "a texture or surface object cannot be made again: {error}");
                return Err(CudaError::from(error).into());
            }
        }
        Ok(())
    }
}
