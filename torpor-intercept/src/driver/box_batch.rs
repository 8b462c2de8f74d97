//! Many copies of boxes in one call, from and to memory and arrays. As with lists of copies
//! ([`copy_batch`](super::copy_batch)), each is put into the stream as if it had been asked for alone; but all are checked
//! before the first one is.

use super::argument::{In, Out};
use super::copy_batch::{ACCESS_ORDERS, Failed};
use super::stream_functions;
use crate::core::{Array, BoxCopy, BoxSide, CudaResult, StreamHandle, StridedCopy, client, contexts};
use torpor_proto::error::CudaError;

/// `CU_MEMCPY_OPERAND_TYPE_POINTER`, `…_ARRAY`
const POINTER: u32 = 1;
const ARRAY: u32 = 2;

/// `CUmemcpy3DOperand`, `cudaMemcpy3DOperand`: its type, and four words that mean what the type says.
#[derive(Clone, Copy)]
#[repr(C)]
struct Operand {
    operand_type: u32,
    /// A pointer, elements of a row, rows of a layer, a hint; or an array, and where in it, in elements.
    words: [u64; 4],
}

/// `CUDA_MEMCPY3D_BATCH_OP`, `cudaMemcpy3DBatchOp`
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct BoxOperation {
    source: Operand,
    destination: Operand,
    /// In elements.
    extent: [u64; 3],
    source_access_order: u32,
    flags: u32,
}

const _: () = assert!(size_of::<BoxOperation>() == size_of::<cudarc::driver::sys::CUDA_MEMCPY3D_BATCH_OP>());

impl Operand {
    fn array(&self) -> CudaResult<Option<&'static Array>> {
        match self.operand_type {
            POINTER => Ok(None),
            ARRAY => Array::find(std::ptr::with_exposed_provenance_mut(self.words[0] as usize)).map(Some),
            _ => Err(CudaError::INVALID_VALUE),
        }
    }

    /// The side of a copy of so many elements of so many bytes.
    fn side(&self, [width, height, _]: [u64; 3], element_bytes: u64) -> CudaResult<BoxSide> {
        let bytes = |elements: u64| elements.checked_mul(element_bytes).ok_or(CudaError::INVALID_VALUE);
        let [first, second, third, fourth] = self.words;
        if let Some(array) = self.array()? {
            return Ok(BoxSide::Array(array, [bytes(second)?, third, fourth]));
        }
        // A length of 0 means tightly packed (cuda.h).
        let row = if second == 0 { width } else { second };
        let rows = if third == 0 { height } else { third };
        if first == 0 || row < width || rows < height {
            return Err(CudaError::INVALID_VALUE);
        }
        Ok(BoxSide::Memory(first, bytes(row)?, rows))
    }
}

impl BoxOperation {
    /// What is copied.
    fn copy(&self) -> CudaResult<BoxCopy> {
        if self.extent.contains(&0) || !ACCESS_ORDERS.contains(&self.source_access_order) {
            return Err(CudaError::INVALID_VALUE);
        }
        let element = |operand: &Operand| {
            Ok::<_, CudaError>(operand.array()?.map(|array| array.shape().element_bytes()))
        };
        let element_bytes = match (element(&self.destination)?, element(&self.source)?) {
            (None, None) => 1,
            (Some(bytes), None) | (None, Some(bytes)) => bytes,
            (Some(to), Some(from)) if to == from => to,
            (Some(_), Some(_)) => return Err(CudaError::INVALID_VALUE),
        };
        let [width, height, depth] = self.extent;
        Ok(BoxCopy {
            destination: self.destination.side(self.extent, element_bytes)?,
            source: self.source.side(self.extent, element_bytes)?,
            lengths: [width.checked_mul(element_bytes).ok_or(CudaError::INVALID_VALUE)?, height, depth],
        })
    }
}

fn post(copy: &BoxCopy, stream: StreamHandle) -> CudaResult<()> {
    let (client, stream) = (client()?, stream.find()?);
    let [width_bytes, height, depth] = copy.lengths;
    let BoxCopy { destination, source, .. } = *copy;
    // SAFETY: the program promises that what is in memory is valid (cuMemcpy3DBatchAsync).
    unsafe {
        match (destination, source) {
            (BoxSide::Memory(to, to_pitch, to_rows), BoxSide::Memory(from, from_pitch, from_rows)) => {
                let (destination, source) = ((to, to_pitch, to_rows), (from, from_pitch, from_rows));
                let copy = StridedCopy { destination, source, width_bytes, height, depth };
                client.copy_strided(&copy, stream, false)
            }
            _ => client.copy_box(copy, stream, false),
        }
    }
}

/// Posts all copies.
///
/// # Errors
/// The number of the copy that failed, if it was one, and the error.
pub(crate) fn post_all(
    count: usize,
    operations: In<BoxOperation>,
    flags: u64,
    stream: StreamHandle,
) -> Result<(), Failed> {
    let whole = |error| Failed { index: None, error };
    client().and(contexts::require().map(drop)).map_err(whole)?;
    // As cuda.h says, not in the legacy stream.
    let is_legacy = stream.find().map_err(whole)?.is_legacy();
    if count == 0 || flags != 0 || is_legacy {
        return Err(whole(CudaError::INVALID_VALUE));
    }
    let operations = operations.slice(count).map_err(whole)?;
    let of = |index| move |error| Failed { index: Some(index), error };
    let copies = operations.iter().enumerate().map(|(index, operation)| operation.copy().map_err(of(index)));
    let copies: Vec<BoxCopy> = copies.collect::<Result<_, _>>()?;
    copies.iter().enumerate().try_for_each(|(index, copy)| post(copy, stream).map_err(of(index)))
}

stream_functions! {
    fn cuMemcpy3DBatchAsync / cuMemcpy3DBatchAsync_ptsz(
        count: usize, operations: In<BoxOperation>, failed: Out<usize>, flags: u64, @ stream,
    ) {
        post_all(count, operations, flags, stream).map_err(|failure| failure.tell(failed))
    }

    fn cuMemcpy3DBatchAsync_v2 / cuMemcpy3DBatchAsync_v2_ptsz(
        count: usize, operations: In<BoxOperation>, flags: u64, @ stream,
    ) {
        post_all(count, operations, flags, stream).map_err(|failure| failure.error)
    }
}
