//! Arrays: what the program may know of them, and their numbers. Their contents are on the GPU alone.

use super::handle::Table;
use super::stream::host_function;
use super::{CudaResult, client};
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};
use torpor_proto::command::{ArrayCreate, ArrayDestroy};
use torpor_proto::error::CudaError;

/// `CUDA_ARRAY3D_LAYERED`, `CUDA_ARRAY3D_CUBEMAP`
const LAYERED: u32 = 1;
const CUBEMAP: u32 = 4;

/// What an array, or a level of one, is like: a `CUDA_ARRAY3D_DESCRIPTOR`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArrayShape {
    /// Elements of a row.
    pub width: u64,
    /// Rows; 0 for one dimension.
    pub height: u64,
    /// Slices or layers; 0 for none.
    pub depth: u64,
    /// `CUarray_format`
    pub format: u32,
    /// 1, 2 or 4.
    pub channels: u32,
    /// `CUDA_ARRAY3D_*`
    pub flags: u32,
}

impl ArrayShape {
    /// Bytes of an element.
    #[must_use]
    pub fn element_bytes(&self) -> u64 {
        let bytes = match self.format {
            0x02 | 0x09 | 0x10 | 0xc3..=0xc5 | 0xc9..=0xcb => 2,
            0x03 | 0x0a | 0x20 => 4,
            _ => 1,
        };
        bytes * u64::from(self.channels)
    }

    /// Bytes of a row, rows, and slices or layers, of which there is at least one.
    #[must_use]
    pub fn extent(&self) -> [u64; 3] {
        [self.width * self.element_bytes(), self.height.max(1), self.depth.max(1)]
    }

    fn level(self, level: u32) -> Self {
        let shrunk = |count: u64| if count == 0 { 0 } else { (count >> level).max(1) };
        let is_layered = self.flags & (LAYERED | CUBEMAP) != 0;
        Self {
            width: shrunk(self.width),
            height: shrunk(self.height),
            depth: if is_layered { self.depth } else { shrunk(self.depth) },
            ..self
        }
    }
}

/// What a handle stands for.
#[derive(Clone, Debug, Default)]
struct Facts {
    shape: ArrayShape,
    /// The worker's number.
    array: u32,
    /// Of a level: which.
    level: u32,
    /// Of a mipmapped array: the handles' numbers of its levels.
    levels: Vec<u32>,
}

/// An array, a level of one, or one with several levels.
pub struct Array {
    number: u32,
    facts: Mutex<Facts>,
}

/// The worker's numbers are these. It has as many.
static ARRAYS: Table<Array> = Table::new(4096);
static LEVELS: Table<Array> = Table::new(1 << 16);

fn insert(table: &'static Table<Array>, facts: Facts) -> CudaResult<&'static Array> {
    let array = table.insert(
        |number| Array { number, facts: Mutex::new(facts.clone()) },
        |array| *array.facts() = facts.clone(),
    );
    array.ok_or(CudaError::OUT_OF_MEMORY)
}

impl Array {
    /// `cuArray3DCreate`, and `cuMipmappedArrayCreate` if there are levels.
    ///
    /// # Errors
    /// What the worker gives.
    pub fn create(shape: ArrayShape, levels: u32) -> CudaResult<&'static Self> {
        let client = client()?;
        let ArrayShape { width, height, depth, format, channels, flags } = shape;
        let array = insert(&ARRAYS, Facts { shape, ..Facts::default() })?;
        let number = array.number;
        let command =
            ArrayCreate { array: number, format, channels, flags, width, height, depth, levels, reserved: 0 };
        if let Err(error) = client.call(&command, &[]) {
            ARRAYS.retire(number);
            return Err(error);
        }
        array.facts().array = number;
        for level in 0..levels {
            let facts = Facts { shape: shape.level(level), array: number, level, levels: Vec::new() };
            let made = insert(&LEVELS, facts).map(|level| level.number);
            if made.is_err() {
                array.destroy()?;
            }
            array.facts().levels.push(made?);
        }
        Ok(array)
    }

    /// The array behind a handle, which may be a level.
    ///
    /// # Errors
    /// `INVALID_HANDLE`, also for one with several levels.
    pub fn find(handle: *mut c_void) -> CudaResult<&'static Self> {
        let array = ARRAYS.get(handle).filter(|array| array.facts().levels.is_empty());
        array.or_else(|| LEVELS.get(handle)).ok_or(CudaError::INVALID_HANDLE)
    }

    /// An array that is no level of another.
    ///
    /// # Errors
    /// As [`Self::find`], also for a level.
    pub fn find_own(handle: *mut c_void) -> CudaResult<&'static Self> {
        Self::find(handle).and_then(|_| ARRAYS.get(handle).ok_or(CudaError::INVALID_HANDLE))
    }

    /// An array with several levels.
    ///
    /// # Errors
    /// `INVALID_HANDLE`.
    pub fn find_mipmapped(handle: *mut c_void) -> CudaResult<&'static Self> {
        let array = ARRAYS.get(handle).filter(|array| !array.facts().levels.is_empty());
        array.ok_or(CudaError::INVALID_HANDLE)
    }

    /// What the program is given for it.
    #[must_use]
    pub fn handle(&'static self) -> *mut c_void {
        Table::handle(self)
    }

    /// What it is like.
    #[must_use]
    pub fn shape(&self) -> ArrayShape {
        self.facts().shape
    }

    /// The worker's number, and the level.
    pub(super) fn place(&self) -> (u32, u32) {
        let facts = self.facts();
        (facts.array, facts.level)
    }

    /// `cuMipmappedArrayGetLevel`.
    ///
    /// # Errors
    /// `INVALID_VALUE` for a level that there is not.
    pub fn level(&self, level: u32) -> CudaResult<&'static Self> {
        let number = self.facts().levels.get(level as usize).copied().ok_or(CudaError::INVALID_VALUE)?;
        LEVELS.numbered(number).ok_or(CudaError::INVALID_VALUE)
    }

    /// `cuArrayDestroy`, `cuMipmappedArrayDestroy`.
    ///
    /// # Errors
    /// What posting gives.
    pub fn destroy(&'static self) -> CudaResult<()> {
        client()?;
        host_function::when_posted(move |client| {
            for level in std::mem::take(&mut self.facts().levels) {
                LEVELS.retire(level);
            }
            // Posted before the number is free again, so that an array created under it comes later in the ring.
            let posted = client.post(&ArrayDestroy { array: self.number, reserved: 0 }, &[]);
            ARRAYS.retire(self.number);
            posted
        })
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_shrink_to_one_element_and_layers_stay() {
        let shape = ArrayShape { width: 8, height: 4, depth: 2, format: 0x20, channels: 2, flags: 0 };
        assert_eq!(shape.extent(), [64, 4, 2]);
        assert_eq!(shape.level(2).extent(), [16, 1, 1]);
        assert_eq!(ArrayShape { flags: LAYERED, ..shape }.level(2).extent(), [16, 1, 2]);
        assert_eq!(ArrayShape { height: 0, depth: 0, ..shape }.level(1).extent(), [32, 1, 1]);
    }
}
