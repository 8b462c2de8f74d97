//! What a pool keeps: free blocks by their length, and how much there is.

use super::super::client;
use super::super::memory::SMALL_BYTES;
use super::super::stream::{Position, Stream};
use super::kind::PoolKind;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use torpor_proto::layout::SEGMENT_GRANULE_BYTES;

/// The shortest step between lengths of blocks.
const SMALL_STEP_BYTES: u64 = 512;

#[derive(Default)]
pub(super) struct Blocks {
    /// Free ones by their length.
    pub(super) free: BTreeMap<u64, Vec<Free>>,
    pub(super) used: Amount,
    pub(super) reserved: Amount,
    pub(super) is_destroyed: bool,
    pub(super) kind: PoolKind,
}

/// Bytes, and the most there were.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Amount {
    pub(super) now_bytes: u64,
    pub(super) most_bytes: u64,
}

/// A block that may be used again.
#[derive(Clone, Copy)]
pub(super) struct Free {
    pub(super) address: u64,
    /// Who freed it, and when.
    pub(super) stream: &'static Stream,
    pub(super) stream_id: u64,
    pub(super) position: Position,
    /// Commands of the whole process until then.
    pub(super) posted: u64,
}

impl Blocks {
    /// A free block of this length that the stream may use now.
    pub(super) fn reuse(&mut self, bytes: u64, stream: &Stream) -> Option<u64> {
        let free = self.free.get_mut(&bytes)?;
        let may_be_used = |block: &Free| block.stream_id == stream.id() || block.is_done();
        // The last one was used last, and is the likeliest to be in caches.
        let at = free.iter().rposition(may_be_used)?;
        let address = free.swap_remove(at).address;
        if free.is_empty() {
            self.free.remove(&bytes);
        }
        Some(address)
    }

    /// Takes out free blocks that fit the condition (length, block) until no more than so many bytes are reserved.
    pub(super) fn take_free(
        &mut self,
        keep_bytes: u64,
        mut fits: impl FnMut(u64, &Free) -> bool,
    ) -> Vec<Free> {
        let (mut taken, reserved) = (Vec::new(), &mut self.reserved.now_bytes);
        for (&bytes, blocks) in self.free.iter_mut().rev() {
            blocks.retain(|block| {
                let goes = *reserved > keep_bytes && fits(bytes, block);
                if goes {
                    *reserved -= bytes;
                    taken.push(*block);
                }
                !goes
            });
        }
        self.free.retain(|_, blocks| !blocks.is_empty());
        taken
    }
}

impl Free {
    pub(super) fn is_done(&self) -> bool {
        let is_all_done =
            || client().is_ok_and(|client| client.synchronized.load(Ordering::Relaxed) >= self.posted);
        self.stream.is_done_up_to(self.position) || is_all_done()
    }
}

impl Amount {
    pub(super) fn add(&mut self, bytes: u64) {
        self.now_bytes += bytes;
        self.most_bytes = self.most_bytes.max(self.now_bytes);
    }
}

/// The length of a block for so many bytes: at most an eighth more, or the shortest step, so that few lengths serve all.
pub(in crate::core) fn block_bytes(bytes: u64) -> Option<u64> {
    let eighth = 1 << (bytes.ilog2().saturating_sub(3));
    let least = if bytes < SMALL_BYTES { SMALL_STEP_BYTES } else { SEGMENT_GRANULE_BYTES };
    bytes.checked_next_multiple_of(std::cmp::max(eighth, least))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn freed(address: u64, stream: &'static Stream) -> Free {
        Free { address, stream, stream_id: stream.id(), position: stream.position(), posted: 0 }
    }

    fn stream() -> &'static Stream {
        Box::leak(Box::new(Stream::for_tests()))
    }

    #[test]
    fn a_stream_gets_its_own_block_at_once_and_anothers_when_its_work_is_done() {
        let (own, other) = (stream(), stream());
        let mut blocks = Blocks::default();
        blocks.free.insert(512, vec![freed(0x1000, own)]);
        assert_eq!(blocks.reuse(512, other), None);
        assert_eq!(blocks.reuse(1024, own), None, "another length");
        assert_eq!(blocks.reuse(512, own), Some(0x1000));
        assert_eq!(blocks.reuse(512, own), None, "it is in use");
        blocks.free.insert(512, vec![freed(0x2000, own)]);
        own.mark_done_up_to(own.position());
        assert_eq!(blocks.reuse(512, other), Some(0x2000));
    }

    #[test]
    fn no_more_is_given_back_than_is_beyond_what_is_kept() {
        let mut blocks = Blocks::default();
        for (bytes, addresses) in [(4 << 20, [1, 2]), (2 << 20, [3, 4])] {
            blocks.free.insert(bytes, addresses.map(|address| freed(address, stream())).to_vec());
            blocks.reserved.add(2 * bytes);
        }
        let taken = |blocks: &mut Blocks, keep: u64| {
            let mut taken: Vec<u64> =
                blocks.take_free(keep << 20, |_, _| true).iter().map(|block| block.address).collect();
            taken.sort_unstable();
            taken
        };
        assert!(blocks.take_free(0, |_, block| block.is_done()).is_empty(), "no work is known to be done");
        assert!(taken(&mut blocks, 12).is_empty());
        assert_eq!(taken(&mut blocks, 7), [1, 2]);
        assert_eq!(blocks.reserved.now_bytes, 4 << 20);
        assert_eq!(taken(&mut blocks, 0), [3, 4]);
        assert_eq!((blocks.reserved.now_bytes, blocks.reserved.most_bytes), (0, 12 << 20));
        assert!(blocks.free.is_empty());
    }

    proptest! {
        #[test]
        fn a_block_is_long_enough_and_hardly_longer(bytes in 1..=1_u64 << 50) {
            let block = block_bytes(bytes).unwrap();
            prop_assert!(block >= bytes);
            let most = if bytes < SMALL_BYTES { 512 } else { 2 << 20 };
            prop_assert!(block - bytes < (bytes / 8).max(most));
            prop_assert_eq!(block_bytes(block), Some(block), "a block that was freed fits what asked for it");
        }
    }

    #[test]
    fn no_length_overflows() {
        assert_eq!(block_bytes(u64::MAX), None);
    }
}
