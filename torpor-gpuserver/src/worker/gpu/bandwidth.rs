//! How fast memory comes to this GPU from somewhere: measured once, with nothing of anybody's.

use crate::chunk::CHUNK_BYTES;
use crate::driver::{Device, Event, Mapping, PhysicalMemory, Place, Reservation, Stream};
use std::sync::Arc;
use std::time::Duration;
use torpor_proto::error::CudaError;

/// Between two looks whether the copies are done: their time is taken on the GPU.
const NAP: Duration = Duration::from_millis(1);

/// Bytes a second from so many bytes of readable memory, copied a few times behind each other.
///
/// # Errors
/// The driver's; for less than a chunk `CUDA_ERROR_INVALID_VALUE`.
///
/// # Safety
/// The memory is there and is what its place says until this returns.
pub(crate) unsafe fn measure(
    device: &Arc<Device>,
    source: (Place, u64),
    bytes: u64,
) -> Result<u64, CudaError> {
    const TIMES: u64 = 2;
    if bytes < CHUNK_BYTES {
        return Err(CudaError::INVALID_VALUE);
    }
    let physical = PhysicalMemory::new(device, bytes)?;
    let reservation = Reservation::anywhere(device, bytes)?;
    let mapping = Mapping::new(&physical, reservation.address())?;
    let target = (Place::Device, reservation.address());
    let (stream, begin, end) = (Stream::new(device, 0)?, Event::new(device, 0)?, Event::new(device, 0)?);
    let copied = (|| {
        // SAFETY: the target is mapped until the end below, and the caller promises the source.
        unsafe { stream.copy(target, source, CHUNK_BYTES as usize)? };
        begin.record(&stream, 0)?;
        for _ in 0..TIMES {
            // SAFETY: as above.
            unsafe { stream.copy(target, source, bytes as usize)? };
        }
        end.record(&stream, 0)
    })();
    // Also where only the first were posted.
    while stream.query() == Err(CudaError::NOT_READY) {
        std::thread::sleep(NAP);
    }
    mapping.unmap()?;
    copied?;
    let seconds = f64::from(begin.milliseconds_to(&end)?) / 1e3;
    // Casts of what is too large, or no number, saturate.
    Ok(if seconds > 0.0 { ((TIMES * bytes) as f64 / seconds) as u64 } else { 0 })
}
