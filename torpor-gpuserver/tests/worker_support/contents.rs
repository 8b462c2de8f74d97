//! What tests write into memory.

use torpor_proto::command::Fill;

/// Bytes that tell one place from another, and one seed from another.
pub fn pattern(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index * 7 + seed + (index >> 8)) as u8).collect()
}

/// Sets elements in a line.
pub fn fill(address: u64, width: u64, value: u32, element_bytes: u32) -> Fill {
    Fill { address, width, height: 1, value, element_bytes, ..Fill::default() }
}
