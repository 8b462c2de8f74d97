//! A chunk of the host store: its size, and how its content is named.

use torpor_proto::layout::SEGMENT_GRANULE_BYTES;

/// Bytes of a chunk, and of the slot it lies in.
pub const CHUNK_BYTES: u64 = SEGMENT_GRANULE_BYTES;

/// The name of a chunk's content: its BLAKE3.
pub type Hash = [u8; 32];

/// Small enough for the first-level cache, large enough for BLAKE3's widest step.
const PIECE_BYTES: usize = 32 << 10;

/// The hash of the chunk at an address. The bytes are copied out piece by piece before they are looked at, since other
/// processes map them too; if somebody writes them meanwhile, the hash is that of nothing.
///
/// # Safety
/// [`CHUNK_BYTES`] from `address` are mapped and readable, and stay so meanwhile.
pub unsafe fn hash_at(address: *const u8) -> Hash {
    let mut hasher = blake3::Hasher::new();
    let mut piece = [0; PIECE_BYTES];
    for offset in (0..CHUNK_BYTES as usize).step_by(PIECE_BYTES) {
        // SAFETY: the caller promises the chunk, which is a whole number of pieces.
        unsafe { std::ptr::copy_nonoverlapping(address.add(offset), piece.as_mut_ptr(), PIECE_BYTES) };
        hasher.update(&piece);
    }
    *hasher.finalize().as_bytes()
}

const _: () = assert!((CHUNK_BYTES as usize).is_multiple_of(PIECE_BYTES));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_all_bytes_in_order() {
        let bytes: Vec<u8> = (0..CHUNK_BYTES).map(|at| (at / 1000) as u8).collect();
        // SAFETY: the vector is a chunk long.
        assert_eq!(unsafe { hash_at(bytes.as_ptr()) }, *blake3::hash(&bytes).as_bytes());
    }
}
