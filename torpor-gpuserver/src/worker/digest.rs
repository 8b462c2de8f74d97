//! Stub.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkDigest { pub(super) low: u64, pub(super) high: u64, pub(super) pointers: u64, pub(super) is_zero: bool }
impl PartialEq for ChunkDigest { fn eq(&self, other: &Self) -> bool { (self.low, self.high) == (other.low, other.high) } }
