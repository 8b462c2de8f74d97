//! Which bytes of a piece of memory were ever written: one bit a byte, made as it is needed.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that share one block of bits.
const BLOCK_BYTES: u64 = 1 << 20;

type Block = Box<[AtomicU64]>;

/// The bits of one piece of memory.
#[derive(Debug)]
pub struct Shadow {
    blocks: Box<[OnceLock<Block>]>,
}

impl Shadow {
    /// For `bytes` bytes, none of them written.
    pub fn new(bytes: u64) -> Self {
        Self { blocks: (0..bytes.div_ceil(BLOCK_BYTES)).map(|_| OnceLock::new()).collect() }
    }

    /// Calls `visit` with every word of bits that the range touches, and the mask of the range in it.
    fn words(
        &self,
        offset: u64,
        bytes: u64,
        mut visit: impl FnMut(&OnceLock<Block>, usize, u64) -> bool,
    ) -> bool {
        let end = offset.saturating_add(bytes);
        let mut at = offset;
        while at < end {
            let Some(block) = usize::try_from(at / BLOCK_BYTES).ok().and_then(|index| self.blocks.get(index))
            else {
                return false;
            };
            let count = (64 - at % 64).min(end - at);
            let mask = (u64::MAX >> (64 - count)) << (at % 64);
            if !visit(block, (at % BLOCK_BYTES / 64) as usize, mask) {
                return false;
            }
            at += count;
        }
        true
    }

    /// Notes that the range is written.
    pub fn mark(&self, offset: u64, bytes: u64) {
        self.words(offset, bytes, |block, word, mask| {
            let fresh = || (0..BLOCK_BYTES / 64).map(|_| AtomicU64::new(0)).collect();
            block.get_or_init(fresh)[word].fetch_or(mask, Ordering::Relaxed);
            true
        });
    }

    /// Whether every byte of the range was written.
    pub fn is_written(&self, offset: u64, bytes: u64) -> bool {
        self.words(offset, bytes, |block, word, mask| {
            block.get().is_some_and(|words| words[word].load(Ordering::Relaxed) & mask == mask)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_list_of_bytes(ranges in prop::collection::vec((0_u64..300, 1_u64..200), 0..8), probe in (0_u64..400, 1_u64..100)) {
            // Around the border of two blocks, where the arithmetic could go wrong.
            let base = BLOCK_BYTES - 200;
            let shadow = Shadow::new(2 * BLOCK_BYTES);
            let mut written = [false; 600];
            for (offset, bytes) in ranges {
                shadow.mark(base + offset, bytes);
                written[offset as usize..(offset + bytes) as usize].fill(true);
            }
            let expected = written[probe.0 as usize..(probe.0 + probe.1) as usize].iter().all(|&byte| byte);
            prop_assert_eq!(shadow.is_written(base + probe.0, probe.1), expected);
        }
    }

    #[test]
    fn outside_is_never_written() {
        let shadow = Shadow::new(100);
        shadow.mark(u64::MAX - 3, 10);
        assert!(!shadow.is_written(BLOCK_BYTES, 1));
    }
}
