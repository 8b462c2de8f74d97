//! Many copies in one call.

use super::{ready, stream_functions};
use crate::driver::argument::{In, Out};
use crate::driver::box_batch::{self, BoxOperation};
use crate::driver::copy_batch::{CopyAttributes, CopyBatch};

stream_functions! {
    fn cudaMemcpyBatchAsync / cudaMemcpyBatchAsync_ptsz(
        destinations: In<u64>, sources: In<u64>, sizes: In<usize>, count: usize, attributes: In<CopyAttributes>,
        attribute_indices: In<usize>, attribute_count: usize, @ stream,
    ) {
        ready()?;
        CopyBatch { destinations, sources, sizes, count, attributes, attribute_indices, attribute_count }
            .post(stream)
            .map_err(|failure| failure.error)
    }

    /// What CUDA 12 calls `cudaMemcpyBatchAsync`.
    fn cudaMemcpyBatchAsync_v1 / cudaMemcpyBatchAsync_v1_ptsz(
        destinations: In<u64>, sources: In<u64>, sizes: In<usize>, count: usize, attributes: In<CopyAttributes>,
        attribute_indices: In<usize>, attribute_count: usize, failed: Out<usize>, @ stream,
    ) {
        ready()?;
        CopyBatch { destinations, sources, sizes, count, attributes, attribute_indices, attribute_count }
            .post(stream)
            .map_err(|failure| failure.tell(failed))
    }

    fn cudaMemcpy3DBatchAsync / cudaMemcpy3DBatchAsync_ptsz(
        count: usize, operations: In<BoxOperation>, flags: u64, @ stream,
    ) {
        ready()?;
        box_batch::post_all(count, operations, flags, stream).map_err(|failure| failure.error)
    }

    /// What CUDA 12 calls `cudaMemcpy3DBatchAsync`.
    fn cudaMemcpy3DBatchAsync_v1 / cudaMemcpy3DBatchAsync_v1_ptsz(
        count: usize, operations: In<BoxOperation>, failed: Out<usize>, flags: u64, @ stream,
    ) {
        ready()?;
        box_batch::post_all(count, operations, flags, stream).map_err(|failure| failure.tell(failed))
    }
}
