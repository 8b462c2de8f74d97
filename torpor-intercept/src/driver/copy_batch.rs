//! Many copies in one call. Each is put into the stream as if it had been asked for alone; the order among them is left open
//! by `cuda.h`, and so is when a source in ordinary memory is read: here, during the call, which every wish allows.

use super::argument::{In, Out};
use super::copy::copy;
use super::stream_functions;
use crate::core::{CudaResult, Direction, StreamHandle, client};
use torpor_proto::error::CudaError;

/// `CUmemcpyAttributes`, `cudaMemcpyAttributes`: an order of access and hints.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct CopyAttributes {
    source_access_order: u32,
    hints: [u32; 4],
    flags: u32,
}

const _: () = assert!(size_of::<CopyAttributes>() == size_of::<cudarc::driver::sys::CUmemcpyAttributes>());

/// `CU_MEMCPY_SRC_ACCESS_ORDER_STREAM`, `…_DURING_API_CALL`, `…_ANY`
pub(super) const ACCESS_ORDERS: std::ops::RangeInclusive<u32> = 1..=3;

/// Why a batch was not posted.
pub(crate) struct Failed {
    /// The copy that failed, if it was one.
    pub(crate) index: Option<usize>,
    /// Why.
    pub(crate) error: CudaError,
}

impl Failed {
    /// For the functions before CUDA 13, which say which copy failed: `SIZE_MAX` if no single one did.
    pub(crate) fn tell(self, place: Out<usize>) -> CudaError {
        place.put_if_wanted(self.index.unwrap_or(usize::MAX));
        self.error
    }
}

/// What the functions have in common: places, sizes, and attributes with the first copy that each is for.
#[derive(Clone, Copy)]
pub(crate) struct CopyBatch {
    pub(crate) destinations: In<u64>,
    pub(crate) sources: In<u64>,
    pub(crate) sizes: In<usize>,
    pub(crate) count: usize,
    pub(crate) attributes: In<CopyAttributes>,
    pub(crate) attribute_indices: In<usize>,
    pub(crate) attribute_count: usize,
}

impl CopyBatch {
    fn check_attributes(&self) -> CudaResult<()> {
        let attributes = self.attributes.slice(self.attribute_count)?;
        let first = self.attribute_indices.slice(self.attribute_count)?;
        let is_right = attributes.iter().all(|given| ACCESS_ORDERS.contains(&given.source_access_order))
            && first.first() == Some(&0)
            && first.is_sorted_by(|one, next| one < next)
            && first.last().is_some_and(|&last| last < self.count);
        if is_right { Ok(()) } else { Err(CudaError::INVALID_VALUE) }
    }

    /// Posts all copies.
    ///
    /// # Errors
    /// The number of the copy that failed, if it was one, and the error.
    pub(crate) fn post(self, stream: StreamHandle) -> Result<(), Failed> {
        let whole = |error| Failed { index: None, error };
        client().map_err(whole)?;
        // As cuda.h says, not in the legacy stream.
        let is_legacy = stream.find().map_err(whole)?.is_legacy();
        if self.count == 0 || is_legacy {
            return Err(whole(CudaError::INVALID_VALUE));
        }
        self.check_attributes().map_err(whole)?;
        let places = |list: In<u64>| list.slice(self.count).map_err(whole);
        let sizes = self.sizes.slice(self.count).map_err(whole)?;
        let ends = places(self.destinations)?.into_iter().zip(places(self.sources)?);
        for (index, ((destination, source), bytes)) in ends.zip(sizes).enumerate() {
            copy(destination, source, bytes, Direction::Any, stream, false)
                .map_err(|error| Failed { index: Some(index), error })?;
        }
        Ok(())
    }
}

stream_functions! {
    fn cuMemcpyBatchAsync / cuMemcpyBatchAsync_ptsz(
        destinations: In<u64>, sources: In<u64>, sizes: In<usize>, count: usize, attributes: In<CopyAttributes>,
        attribute_indices: In<usize>, attribute_count: usize, failed: Out<usize>, @ stream,
    ) {
        CopyBatch { destinations, sources, sizes, count, attributes, attribute_indices, attribute_count }
            .post(stream)
            .map_err(|failure| failure.tell(failed))
    }

    fn cuMemcpyBatchAsync_v2 / cuMemcpyBatchAsync_v2_ptsz(
        destinations: In<u64>, sources: In<u64>, sizes: In<usize>, count: usize, attributes: In<CopyAttributes>,
        attribute_indices: In<usize>, attribute_count: usize, @ stream,
    ) {
        CopyBatch { destinations, sources, sizes, count, attributes, attribute_indices, attribute_count }
            .post(stream)
            .map_err(|failure| failure.error)
    }
}
