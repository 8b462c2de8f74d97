//! Fences: how a session learns that the GPU has come so far, without asking the driver.
//!
//! Each stream has a word in page-locked memory. A fence is the next number, which the stream writes there once its
//! earlier work is done; reached means that the word has that number or a later one.

use crate::driver::{PinnedWords, Stream};
use crate::worker::gpu::Shared;
use crate::worker::sync::lock;
pub(crate) use crate::worker::words::Fence;
use std::sync::Arc;
use torpor_proto::error::CudaError;

/// Streams that a session can have at once, those included that are being destroyed.
const WORDS: usize = 8192;

/// A stream's own word, and how far it was told to count.
#[derive(Debug)]
pub(crate) struct Counter {
    word: u32,
    target: u32,
}

/// The words of a session.
#[derive(Debug)]
pub(crate) struct Fences {
    shared: Arc<Shared>,
    words: Arc<PinnedWords>,
    free: Vec<u32>,
    /// Words from here on were never used.
    unused: u32,
}

impl Fences {
    /// Takes the words of a session that ended, or new ones.
    pub(crate) fn new(shared: &Arc<Shared>) -> Result<Self, CudaError> {
        let pooled = lock(&shared.words).pop();
        let words = match pooled {
            Some(words) => {
                (0..WORDS).for_each(|index| words.store(index, 0));
                words
            }
            None => Arc::new(PinnedWords::new(&shared.device, WORDS)?),
        };
        Ok(Self { shared: shared.clone(), words, free: Vec::new(), unused: 0 })
    }

    /// A word for a new stream.
    pub(crate) fn counter(&mut self) -> Result<Counter, CudaError> {
        if let Some(word) = self.free.pop() {
            // Nothing writes it any more, so it stands at its last target.
            return Ok(Counter { word, target: self.load(word) });
        }
        if self.unused as usize >= WORDS {
            return Err(CudaError::OUT_OF_MEMORY);
        }
        self.unused += 1;
        Ok(Counter { word: self.unused - 1, target: 0 })
    }

    /// Takes the word of a stream back whose last fence is reached.
    pub(crate) fn give_back(&mut self, counter: Counter) {
        self.free.push(counter.word);
    }

    /// Puts a fence behind the stream's earlier work.
    pub(crate) fn post(&self, stream: &Stream, counter: &mut Counter) -> Result<Fence, CudaError> {
        let target = counter.target.wrapping_add(1);
        self.words.write_from(stream, counter.word as usize, target)?;
        counter.target = target;
        Ok(counter.last())
    }

    /// Whether the GPU has come so far.
    #[inline]
    pub(crate) fn is_reached(&self, fence: Fence) -> bool {
        fence.is_reached(&*self.words)
    }

    /// Drops the fences that are reached, and tells whether none is left.
    #[inline]
    pub(crate) fn all_reached(&self, fences: &mut Vec<Fence>) -> bool {
        fences.retain(|&fence| !self.is_reached(fence));
        fences.is_empty()
    }

    #[inline]
    fn load(&self, word: u32) -> u32 {
        self.words.load(word as usize)
    }

    /// Where they are, for others that look at this session's fences: until these are dropped.
    pub(crate) fn words(&self) -> Arc<PinnedWords> {
        self.words.clone()
    }
}

impl Counter {
    /// The last fence posted; one that is reached if there was none.
    pub(crate) fn last(&self) -> Fence {
        Fence { word: self.word, target: self.target }
    }
}

impl Drop for Fences {
    fn drop(&mut self) {
        // A session drops its fences when its streams are idle, so nothing writes the words any more.
        lock(&self.shared.words).push(self.words.clone());
    }
}
