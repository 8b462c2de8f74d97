//! Words in page-locked memory that the GPU counts up as it comes on, and points in its work that are seen by them.

use crate::driver::PinnedWords;
use std::fmt::Debug;

/// A point in a stream's work: reached when the stream's word has this number or a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fence {
    pub(crate) word: u32,
    pub(crate) target: u32,
}

impl Fence {
    /// Whether the GPU has come so far.
    #[inline]
    pub(crate) fn is_reached(self, words: &(impl Words + ?Sized)) -> bool {
        words.at(self.word).wrapping_sub(self.target).cast_signed() >= 0
    }
}

/// Where words are read, which asks no driver.
pub(crate) trait Words: Debug + Send + Sync {
    /// A word's value.
    fn at(&self, word: u32) -> u32;
}

impl Words for PinnedWords {
    #[inline]
    fn at(&self, word: u32) -> u32 {
        self.load(word as usize)
    }
}
