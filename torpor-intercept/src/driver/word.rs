//! Words in memory that streams write and wait for. The functions before CUDA 11.7 say the same as those after it.

use super::argument::In;
use super::stream_functions;
use crate::core::{CudaResult, StreamHandle, Width, WordOperation, client};
use torpor_proto::error::CudaError;

fn one(stream: StreamHandle, operation: WordOperation) -> CudaResult<()> {
    client()?;
    stream.find()?.do_with_words(&[operation])
}

fn batch(stream: StreamHandle, count: u32, operations: In<WordOperation>, flags: u32) -> CudaResult<()> {
    client()?;
    stream.find()?.do_with_words(&batched(count, operations, flags)?)
}

/// The operations of a batch.
pub(super) fn batched(
    count: u32,
    operations: In<WordOperation>,
    flags: u32,
) -> CudaResult<Vec<WordOperation>> {
    if flags != 0 || count as usize > WordOperation::MOST {
        return Err(CudaError::INVALID_VALUE);
    }
    operations.slice(count as usize)
}

/// The functions for one word of a width and for a batch, of both versions.
macro_rules! words {
    ($($width:ident $value:ty: $wait:ident / $wait_per_thread:ident, $write:ident / $write_per_thread:ident;)*) => {
        stream_functions! {$(
            fn $wait / $wait_per_thread(@ stream, address: u64, value: $value, flags: u32) {
                one(stream, WordOperation::wait(Width::$width, address, value.into(), flags))
            }

            fn $write / $write_per_thread(@ stream, address: u64, value: $value, flags: u32) {
                one(stream, WordOperation::write(Width::$width, address, value.into(), flags))
            }
        )*}
    };
}

words! {
    Narrow u32: cuStreamWaitValue32 / cuStreamWaitValue32_ptsz, cuStreamWriteValue32 / cuStreamWriteValue32_ptsz;
    Narrow u32: cuStreamWaitValue32_v2 / cuStreamWaitValue32_v2_ptsz,
        cuStreamWriteValue32_v2 / cuStreamWriteValue32_v2_ptsz;
    Wide u64: cuStreamWaitValue64 / cuStreamWaitValue64_ptsz, cuStreamWriteValue64 / cuStreamWriteValue64_ptsz;
    Wide u64: cuStreamWaitValue64_v2 / cuStreamWaitValue64_v2_ptsz,
        cuStreamWriteValue64_v2 / cuStreamWriteValue64_v2_ptsz;
}

stream_functions! {
    fn cuStreamBatchMemOp / cuStreamBatchMemOp_ptsz(
        @ stream, count: u32, operations: In<WordOperation>, flags: u32,
    ) {
        batch(stream, count, operations, flags)
    }

    fn cuStreamBatchMemOp_v2 / cuStreamBatchMemOp_v2_ptsz(
        @ stream, count: u32, operations: In<WordOperation>, flags: u32,
    ) {
        batch(stream, count, operations, flags)
    }
}
