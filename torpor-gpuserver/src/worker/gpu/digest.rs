//! Digests of device memory: which chunks of it have changed, found on the GPU at the speed of its memory.
//!
//! [`Digests`] is the kernel (`digest.ptx`, which says how the digest is made), loaded once for a worker. A caller puts the
//! addresses of chunks into a [`DigestBuffer`], posts the kernel in the order of a stream, waits for a fence behind it, and
//! reads the results there. The kernel reads each byte once and writes nothing but the results.
//!
//! What it promises: equal chunks have equal digests, also on another GPU; one changed word always changes the digest; other
//! changes stay unseen with a probability of about 2⁻¹²⁸. It is no cryptographic hash: a program that wants its own
//! changes to be lost may find how.
//!
//! Limits: chunks are in device memory, aligned to 16 bytes, and all chunks of one launch have the same length, a multiple of
//! [`TILE_BYTES`].

use crate::driver::{CodeLibrary, Device, Kernel, LaunchConfig, PinnedArray, Stream};
use std::sync::Arc;
use torpor_proto::error::CudaError;
use torpor_proto::layout::AddressRange;

/// The length of a chunk is a multiple of this: what a block of the kernel reads at once.
pub(crate) const TILE_BYTES: u64 = THREADS as u64 * 16;

/// Threads of a block of the kernel.
const THREADS: u32 = 1024;

/// Alignment of chunks in bytes: what a thread reads at once.
const CHUNK_ALIGNMENT: u64 = 16;

/// Numbers of a chunk's result.
const RESULT_NUMBERS: usize = 4;

/// The kernel, as text for the driver's compiler.
const CODE: &str = concat!(include_str!("digest.ptx"), "\0");

/// What the kernel says of a chunk. Equal means equal digests: the rest depends on where the arena is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkDigest {
    /// One half of the digest.
    pub(crate) low: u64,
    /// The other half, mixed otherwise.
    pub(crate) high: u64,
    /// How many aligned 64-bit words have the value of an address in the arena or in the host range, and so may be pointers.
    pub(crate) pointers: u64,
    /// Whether every byte is zero.
    pub(crate) is_zero: bool,
}

impl PartialEq for ChunkDigest {
    fn eq(&self, other: &Self) -> bool {
        (self.low, self.high) == (other.low, other.high)
    }
}

impl Eq for ChunkDigest {}

/// Where chunks' addresses and results lie, for one launch at a time.
#[derive(Debug)]
pub(crate) struct DigestBuffer {
    /// The results, which the kernel wants aligned, then the addresses.
    numbers: PinnedArray,
    chunks: usize,
}

impl DigestBuffer {
    /// Takes page-locked memory for up to `chunks` chunks, of which there is at least one.
    pub(crate) fn new(device: &Arc<Device>, chunks: usize) -> Result<Self, CudaError> {
        let chunks = chunks.max(1);
        let numbers = chunks.checked_mul(RESULT_NUMBERS + 1).ok_or(CudaError::OUT_OF_MEMORY)?;
        Ok(Self { numbers: PinnedArray::new(device, numbers)?, chunks })
    }

    /// For how many chunks there is room.
    pub(crate) fn capacity(&self) -> usize {
        self.chunks
    }

    /// Names a chunk of the next launch.
    ///
    /// # Panics
    /// If `index` is beyond the capacity.
    pub(crate) fn set_chunk(&self, index: usize, address: u64) {
        self.numbers.store(self.address_number(index), address);
    }

    /// What the last launch, which is complete, found in a chunk.
    ///
    /// # Panics
    /// If `index` is beyond the capacity.
    pub(crate) fn digest(&self, index: usize) -> ChunkDigest {
        assert!(index < self.chunks, "chunk {index} of {}", self.chunks);
        let [low, high, pointers, any] =
            std::array::from_fn(|number| self.numbers.load(index * RESULT_NUMBERS + number));
        ChunkDigest { low, high, pointers, is_zero: any == 0 }
    }

    fn address_number(&self, index: usize) -> usize {
        assert!(index < self.chunks, "chunk {index} of {}", self.chunks);
        self.chunks * RESULT_NUMBERS + index
    }
}

/// The kernel, in the context of a device.
#[derive(Debug)]
pub(crate) struct Digests {
    kernel: Kernel,
    /// Keeps the kernel loaded.
    _library: CodeLibrary,
}

impl Digests {
    /// Loads the kernel; the driver compiles it, which takes milliseconds.
    pub(crate) fn load(device: &Arc<Device>) -> Result<Self, CudaError> {
        // SAFETY: PTX text with its NUL.
        let library = unsafe { CodeLibrary::load(device, CODE.as_bytes()) }?;
        Ok(Self { kernel: library.kernel("torpor_digest")?, _library: library })
    }

    /// Digests the first `count` chunks of the buffer in the order of a stream, and counts in them the words that may be
    /// addresses in `arena` or `host`.
    ///
    /// # Errors
    /// The driver's; `CUDA_ERROR_INVALID_VALUE` for more chunks than the buffer has, for a length that is no multiple of
    /// [`TILE_BYTES`], and for an address that is not aligned to 16 bytes.
    ///
    /// # Safety
    /// Until the kernel has run, `self` and the buffer live, no other launch uses the buffer, and every chunk named in it is
    /// mapped device memory. What is written to a chunk meanwhile makes its digest meaningless, and no more.
    pub(crate) unsafe fn post(
        &self,
        stream: &Stream,
        buffer: &DigestBuffer,
        count: usize,
        chunk_bytes: u64,
        [arena, host]: [AddressRange; 2],
    ) -> Result<(), CudaError> {
        if count == 0 {
            return Ok(());
        }
        let is_aligned =
            |index| buffer.numbers.load(buffer.address_number(index)).is_multiple_of(CHUNK_ALIGNMENT);
        if count > buffer.chunks || !chunk_bytes.is_multiple_of(TILE_BYTES) || !(0..count).all(is_aligned) {
            return Err(CudaError::INVALID_VALUE);
        }
        let blocks = u32::try_from(count).map_err(|_| CudaError::INVALID_VALUE)?;
        let config =
            LaunchConfig { grid: [blocks, 1, 1], block: [THREADS, 1, 1], shared_bytes: 0, attributes: &[] };
        let parameters = [
            buffer.numbers.device_address(buffer.address_number(0)),
            buffer.numbers.device_address(0),
            chunk_bytes,
            arena.address,
            arena.bytes,
            host.address,
            host.bytes,
        ];
        // SAFETY: the kernel has these seven parameters of 64 bits; buffer and chunks are there, as the caller promises, and
        // are as large and as aligned as the kernel wants.
        unsafe { stream.launch(self.kernel, &config, &parameters, size_of_val(&parameters)) }
    }
}

#[cfg(test)]
mod tests;
