//! Fills.

use super::copy::{LEGACY, PER_THREAD};
use super::{cuda_functions, stream_functions};
use crate::core::{CudaResult, StreamHandle, client, contexts};

fn fill(
    address: u64,
    pitch: usize,
    (width, height): (usize, usize),
    value: (u32, u32),
    (stream, waits): (StreamHandle, bool),
) -> CudaResult<()> {
    let client = client()?;
    contexts::require()?;
    client.fill(address, pitch as u64, (width as u64, height as u64), value, (stream.find()?, waits))
}

/// For values of each width: the functions of a range and of a rectangle, each in the order of the default stream, of the
/// calling thread's default stream, and of a stream that is named.
macro_rules! fills {
    ($($value:ty: $plain:ident / $plain_per_thread:ident, $plain_async:ident / $plain_async_per_thread:ident,
        $rows:ident / $rows_per_thread:ident, $rows_async:ident / $rows_async_per_thread:ident;)*) => {
        cuda_functions! {$(
            fn $plain(address: u64, value: $value, count: usize) {
                fill(address, 0, (count, 1), (value.into(), size_of::<$value>() as u32), (LEGACY, true))
            }

            fn $plain_per_thread(address: u64, value: $value, count: usize) {
                fill(address, 0, (count, 1), (value.into(), size_of::<$value>() as u32), (PER_THREAD, true))
            }

            fn $rows(address: u64, pitch: usize, value: $value, width: usize, height: usize) {
                fill(address, pitch, (width, height), (value.into(), size_of::<$value>() as u32), (LEGACY, true))
            }

            fn $rows_per_thread(address: u64, pitch: usize, value: $value, width: usize, height: usize) {
                fill(address, pitch, (width, height), (value.into(), size_of::<$value>() as u32), (PER_THREAD, true))
            }
        )*}

        stream_functions! {$(
            fn $plain_async / $plain_async_per_thread(address: u64, value: $value, count: usize, @ stream) {
                fill(address, 0, (count, 1), (value.into(), size_of::<$value>() as u32), (stream, false))
            }

            fn $rows_async / $rows_async_per_thread(
                address: u64, pitch: usize, value: $value, width: usize, height: usize, @ stream,
            ) {
                fill(address, pitch, (width, height), (value.into(), size_of::<$value>() as u32), (stream, false))
            }
        )*}
    };
}

fills! {
    u8: cuMemsetD8_v2 / cuMemsetD8_v2_ptds, cuMemsetD8Async / cuMemsetD8Async_ptsz,
        cuMemsetD2D8_v2 / cuMemsetD2D8_v2_ptds, cuMemsetD2D8Async / cuMemsetD2D8Async_ptsz;
    u16: cuMemsetD16_v2 / cuMemsetD16_v2_ptds, cuMemsetD16Async / cuMemsetD16Async_ptsz,
        cuMemsetD2D16_v2 / cuMemsetD2D16_v2_ptds, cuMemsetD2D16Async / cuMemsetD2D16Async_ptsz;
    u32: cuMemsetD32_v2 / cuMemsetD32_v2_ptds, cuMemsetD32Async / cuMemsetD32Async_ptsz,
        cuMemsetD2D32_v2 / cuMemsetD2D32_v2_ptds, cuMemsetD2D32Async / cuMemsetD2D32Async_ptsz;
}
