//! Arrays: the memory that they take, which is cleared first, and what becomes of them when their client leaves the GPU and
//! comes back.

mod coming;
mod leaving;

use crate::driver::{Array, Box3d, End, Pitched, Place};
use crate::state_file::Void;
use crate::worker::gpu::memory::taken::{TakenBytes, ZERO_BYTES};
use crate::worker::objects::array::{ClientArray, ClientObject, Here, MOST_ARRAYS, MOST_OBJECTS, Recipe};
use crate::worker::objects::array_shape::{ArrayShape, Extent};
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use torpor_proto::command::ArrayCreate;
use torpor_proto::error::CudaError;

impl Session {
    /// Makes an array that is all zero. Gives the memory that it counts as.
    ///
    /// # Errors
    /// As [`ArrayShape::new`]; `CUDA_ERROR_OUT_OF_MEMORY` beyond a limit; the driver's.
    pub(crate) fn make_array(&mut self, array: &ArrayCreate) -> Result<u64, Halt> {
        let (shape, number) = (ArrayShape::new(array)?, array.array);
        let bytes = shape.bytes();
        let mut checked = self.space.check_limit(bytes);
        if checked.is_err() {
            // A client that is never idle has not been told of a new limit.
            self.renew_settings();
            checked = self.space.check_limit(bytes);
        }
        if checked.is_err() {
            let (has, may_have) = (self.space.allocated_bytes(), self.space.limit_bytes());
            self.tell_refusal(&format!(
                "out of memory: an array of {bytes} bytes is refused, for this process of the function has {has} of the \
                 {may_have} bytes that it may have: raise the function's memory_limit (at most the GPU's limit)"
            ));
        }
        checked?;
        self.activate_with(bytes)?;
        let memory = self.shared.memory.clone();
        // The limit may be another one than before the client waited for its turn.
        self.space.check_limit(bytes).inspect_err(|_| memory.unreserve(self.link.client, bytes))?;
        let taken = TakenBytes::of_reserved(&memory, self.link.client, bytes, &self.arrays.here_bytes);
        let made = Rc::new(ClientArray::new(*array, &self.space.array_bytes)?);
        let array = memory.make(|| Array::new(&self.shared.device, array))?;
        made.set_here(Some(Here { array, taken }));
        // Before it is cleared: a session that ends meanwhile waits for that, and gives the array back then.
        self.arrays.insert(number, made.clone())?;
        self.arrays.have_changed = true;
        if let Err(halt) = self.clear_array(&made) {
            if halt != Halt::Interrupted {
                self.wait_for_setup()?;
                drop(self.arrays.remove(number)?);
            }
            return Err(halt);
        }
        self.note_arrays();
        Ok(bytes)
    }

    /// An array or object is gone: so is what is stored, with the last array.
    pub(crate) fn note_destroyed(&mut self) {
        if self.arrays.all().is_empty() {
            self.forget_stored(Void::Arrays);
            self.arrays.have_changed = false;
        }
        self.note_arrays();
    }

    /// Makes an object over an array, or over memory that is mapped. Returns its handle.
    pub(crate) fn make_object(&mut self, recipe: Recipe, over: Option<Rc<ClientArray>>) -> Result<u64, Halt> {
        let here = over.as_ref().map(|over| over.here()).transpose()?;
        let (device, kind) = (&self.shared.device, recipe.kind());
        let make = || recipe.make(device, here.as_deref());
        let handle = self.shared.handles.make(self.link.client, make)?;
        let number = handle.number();
        self.arrays.objects.insert((kind, number), ClientObject { handle, recipe, over });
        self.note_arrays();
        Ok(number)
    }

    /// Whether the client stays on this GPU, with its arrays: it has objects, and no other one's would have their handles.
    pub(crate) fn keeps_arrays(&self) -> bool {
        !self.arrays.objects.is_empty() && !self.shared.handles.come_again()
    }

    /// Tells what the client has of these now, and what of it stays here.
    pub(crate) fn note_arrays(&self) {
        let keeps = self.keeps_arrays();
        let kept_bytes = if keeps { self.arrays.here_bytes.get() } else { 0 };
        self.shared.memory.set_kept(self.link.client, kept_bytes);
        let objects = if keeps { self.arrays.objects.len() as u32 } else { 0 };
        self.link.usage.fixed_objects.store(objects, Ordering::Relaxed);
        self.tell_memory();
    }

    /// Its memory may have been somebody else's.
    fn clear_array(&mut self, made: &ClientArray) -> Result<(), Halt> {
        let (address, here) = (self.shared.memory.zeroes()?, made.here()?);
        for level in 0..made.shape.levels() {
            let Extent { row_bytes, rows, slices } = made.shape.level(level)?;
            let high = rows.min((ZERO_BYTES / row_bytes).max(1));
            let deep = if high < rows { 1 } else { slices.min((ZERO_BYTES / (row_bytes * rows)).max(1)) };
            for z in (0..slices).step_by(deep as usize) {
                for y in (0..rows).step_by(high as usize) {
                    let extent = Box3d {
                        width_bytes: row_bytes as usize,
                        height: high.min(rows - y) as usize,
                        depth: deep.min(slices - z) as usize,
                    };
                    let zeroes = Pitched {
                        place: Place::Host,
                        address,
                        pitch: extent.width_bytes,
                        height: extent.height,
                    };
                    let array = &here.array;
                    let to = End::Array { array, level, x_bytes: 0, y: y as usize, z: z as usize };
                    // SAFETY: the array stays until the client's streams, this one included, are idle; the zeroes stay as long as the
                    // GPU's memory, and the box has at most as many of them: a row has at most 2 MiB.
                    unsafe { self.streams.enter_setup().copy_box(to, End::Memory(zeroes), extent)? };
                }
            }
        }
        let fence = self.streams.fence_setup()?;
        self.wait_for(Vec::from_iter(fence))
    }

    /// Whether the client may have one more array.
    pub(crate) fn check_new_array(&mut self, array: u32) -> Result<(), CudaError> {
        let checked = self.arrays.table.check_free(array);
        if checked == Err(CudaError::OUT_OF_MEMORY) {
            self.tell_refusal(&format!(
                "out of arrays: this process of the function has the {MOST_ARRAYS} arrays that one may have"
            ));
        }
        checked
    }

    /// Whether the client may have one more texture or surface object.
    pub(crate) fn check_new_object(&mut self) -> Result<(), CudaError> {
        if self.arrays.objects.len() < MOST_OBJECTS {
            return Ok(());
        }
        self.tell_refusal(&format!(
            "out of texture and surface objects: this process of the function has the {MOST_OBJECTS} that one may have"
        ));
        Err(CudaError::OUT_OF_MEMORY)
    }

    fn tell_refusal(&mut self, refusal: &str) {
        if let Some(untold) = self.residency.refusals.tell(Instant::now()) {
            let link = &self.link;
            tracing::warn!(client = link.client, function = %link.function, untold, "{refusal}");
        }
    }
}
