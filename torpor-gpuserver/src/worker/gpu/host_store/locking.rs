//! Page-locking a slab without holding up whoever works: while memory is locked the driver takes no launch of anybody (an H200: 7 ms
//! for 256 MiB, 0.9 for 4 MiB). So beside the work of others it is done in small pieces, with pauses. Each is copied by itself from then on,
//! which costs little: 53.5 GB/s in pieces of 4 MiB, 55.3 of 64 (docs/benchmarks/swapping.md).
//!
//! No copy reaches from one locked piece into the next: the driver refuses it (`CUDA_ERROR_INVALID_VALUE`, driver 580), so whoever
//! copies several chunks in one go asks where pieces begin.

use crate::driver::{Device, HostRegistration};
use std::sync::Arc;
use std::time::Duration;
use torpor_proto::error::CudaError;
use torpor_proto::layout::AddressRange;

/// Locked at once while nobody works.
const PIECE_BYTES: u64 = 64 << 20;

/// Locked at once beside the work of others.
const SMALL_PIECE_BYTES: u64 = 4 << 20;

/// Between two small pieces.
const PAUSE: Duration = Duration::from_micros(500);

/// A mapping that is locked piece by piece.
#[derive(Debug)]
pub(super) struct Locked {
    pieces: Vec<(u64, HostRegistration)>,
}

impl Locked {
    /// Locks a range; `is_busy` says whether anybody works meanwhile.
    ///
    /// # Errors
    /// The driver's, for any of the pieces.
    ///
    /// # Safety
    /// The range is mapped in this process, and stays so as long as the result lives.
    pub(super) unsafe fn lock(
        device: &Arc<Device>,
        range: AddressRange,
        is_busy: &dyn Fn() -> bool,
    ) -> Result<Self, CudaError> {
        let (mut address, end) = (range.address, range.address + range.bytes);
        let mut pieces = Vec::new();
        while address < end {
            let is_beside = is_busy();
            if is_beside && !pieces.is_empty() {
                std::thread::sleep(PAUSE);
            }
            let bytes = if is_beside { SMALL_PIECE_BYTES } else { PIECE_BYTES }.min(end - address);
            // SAFETY: a part of the range, which the caller promises.
            pieces.push((address, unsafe { HostRegistration::new(device, address, bytes)? }));
            address += bytes;
        }
        Ok(Self { pieces })
    }

    /// Where its pieces begin.
    pub(super) fn borders(&self) -> impl Iterator<Item = u64> {
        self.pieces.iter().map(|&(address, _)| address)
    }
}
