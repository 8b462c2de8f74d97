//! A channel: the shared memory of one client and the worker that serves it.
//!
//! ```text
//! ┌──────────────┬───────────────────────────────┬──────────────────────────────┬────────────────────┐
//! │ header, 4 KiB│ completion slots, 64 × 16 KiB │ ring, 2 MiB of 64-bit words  │ last words, 16 KiB │
//! └──────────────┴───────────────────────────────┴──────────────────────────────┴────────────────────┘
//! ```
//!
//! The node server makes it and publishes its version last; it is sealed, so no side can shrink it under the other.

use crate::completion::{SLOTS, Slot};
use crate::error::CudaError;
use crate::mapping::{Mapping, check_sealed, create_sealed};
use crate::ring::Control;
use crate::staging::Staging;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::{PROTOCOL_VERSION, layout};
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Words of the ring.
pub const RING_WORDS: usize = 256 * 1024;

const MAGIC: u64 = u64::from_le_bytes(*b"torpor\0c");

/// How long [`MappedChannel::open`] waits for a channel that is not ready yet.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// What a channel begins with.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct ChannelHeader {
    magic: AtomicU64,
    version: AtomicU32,
    /// Set by the worker or the server, never cleared: every later call of the client fails with it.
    sticky_error: AtomicU32,
    /// The first error of a posted command since the client last looked.
    deferred_error: AtomicU32,
    /// Not 0 while the worker has text for the client, see [`crate::command::TextTake`].
    has_text: AtomicU32,
    /// See [`crate::command::StagingMark`].
    staging: Staging,
    ring: Control,
}

/// The shared memory as both sides see it. Only atomics, so that the other side may do as it likes.
#[derive(Debug)]
#[repr(C)]
pub struct Channel {
    /// Magic, version, errors and counters.
    pub header: ChannelHeader,
    /// Where answers arrive.
    pub slots: [Slot; SLOTS],
    /// The ring's words.
    pub words: [AtomicU64; RING_WORDS],
    last_words: Slot,
}

const _: () = assert!(size_of::<ChannelHeader>() == layout::PAGE_BYTES as usize);
const _: () = assert!(std::mem::offset_of!(Channel, slots) == 4096);
const _: () = assert!(std::mem::offset_of!(Channel, words) == 4096 + SLOTS * 16384);
const _: () = assert!(RING_WORDS.is_power_of_two());

/// Bytes of a channel.
pub const CHANNEL_BYTES: usize = size_of::<Channel>();

impl Channel {
    /// The ring's counters.
    #[must_use]
    pub fn ring(&self) -> &Control {
        &self.header.ring
    }

    /// Worker, server: every later call of the client fails with this. The first such error stays.
    pub fn fail(&self, error: CudaError) {
        let _ = self.header.sticky_error.compare_exchange(0, error.0, Ordering::Release, Ordering::Relaxed);
    }

    /// The error set by [`Self::fail`].
    #[inline]
    #[must_use]
    pub fn sticky_error(&self) -> Option<CudaError> {
        CudaError::check(self.header.sticky_error.load(Ordering::Acquire)).err()
    }

    /// Worker: a posted command failed. The first error since the client last looked stays.
    pub fn defer(&self, error: CudaError) {
        let _ = self.header.deferred_error.compare_exchange(0, error.0, Ordering::Release, Ordering::Relaxed);
    }

    /// Client: the first error of posted commands since the last call of this.
    #[inline]
    #[must_use]
    pub fn take_deferred_error(&self) -> Option<CudaError> {
        if self.header.deferred_error.load(Ordering::Relaxed) == 0 {
            return None;
        }
        CudaError::check(self.header.deferred_error.swap(0, Ordering::Acquire)).err()
    }

    /// Worker: whether there is text that the client has not taken.
    pub fn announce_text(&self, is_there: bool) {
        self.header.has_text.store(is_there.into(), Ordering::Release);
    }

    /// Client: see [`Self::announce_text`].
    #[inline]
    #[must_use]
    pub fn has_text(&self) -> bool {
        self.header.has_text.load(Ordering::Acquire) != 0
    }

    /// Worker: what the driver said of the client's kernels before everything failed, cut at 16 KiB. Goes before [`Self::fail`].
    pub fn leave_last_words(&self, text: &[u8]) {
        self.last_words.complete(Ok(()), &[], text);
    }

    /// Client: see [`Self::leave_last_words`]; empty if there are none.
    #[must_use]
    pub fn last_words(&self) -> Vec<u8> {
        if !self.last_words.is_done() {
            return Vec::new();
        }
        let mut words = Vec::new();
        let (_, bytes) = self.last_words.take(&mut words);
        let mut text = bytemuck::cast_slice(&words).to_vec();
        text.truncate(bytes);
        text
    }

    /// How far the staging area is free again.
    #[must_use]
    pub fn staging(&self) -> &Staging {
        &self.header.staging
    }
}

/// Why a channel cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// Mapping failed, or size or seals are wrong.
    #[error("the shared memory cannot be used: {0}")]
    Memory(#[from] io::Error),
    /// Nobody published a version in time.
    #[error("the shared memory was not made ready within a second; is the server overloaded?")]
    NotReady,
    /// Another version.
    #[error(
        "the shared memory has version {theirs}, this program {PROTOCOL_VERSION}: use shim and server of one release"
    )]
    Version {
        /// What is there.
        theirs: u32,
    },
}

/// A channel mapped into this process.
#[derive(Debug)]
pub struct MappedChannel(Mapping);

impl MappedChannel {
    /// Server: makes a channel and publishes it.
    ///
    /// # Errors
    /// [`ChannelError::Memory`].
    pub fn create() -> Result<(Self, OwnedFd), ChannelError> {
        let file = create_sealed("torpor-channel", CHANNEL_BYTES as u64)?;
        let channel = Self(Mapping::anywhere(&file, CHANNEL_BYTES)?);
        channel.header.magic.store(MAGIC, Ordering::Relaxed);
        channel.header.version.store(PROTOCOL_VERSION, Ordering::Release);
        Ok((channel, file))
    }

    /// Maps a channel made elsewhere, once it is ready.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn open(file: impl AsFd) -> Result<Self, ChannelError> {
        check_sealed(&file, CHANNEL_BYTES as u64)?;
        let channel = Self(Mapping::anywhere(&file, CHANNEL_BYTES)?);
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            match channel.header.version.load(Ordering::Acquire) {
                0 if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
                0 => return Err(ChannelError::NotReady),
                PROTOCOL_VERSION if channel.header.magic.load(Ordering::Relaxed) == MAGIC => {
                    return Ok(channel);
                }
                theirs => return Err(ChannelError::Version { theirs }),
            }
        }
    }
}

impl Deref for MappedChannel {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        // SAFETY: the mapping is CHANNEL_BYTES long, page-aligned, sealed against shrinking, lives as long as self, and
        // a Channel is made of atomics alone, for which every bit pattern is valid and shared access is allowed.
        unsafe { self.0.address().cast::<Channel>().as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_writes_the_other_sees() {
        let (server, file) = MappedChannel::create().unwrap();
        let client = MappedChannel::open(&file).unwrap();
        assert_eq!(client.take_deferred_error(), None);
        server.defer(CudaError::INVALID_VALUE);
        server.defer(CudaError::NOT_FOUND);
        assert_eq!(client.take_deferred_error(), Some(CudaError::INVALID_VALUE));
        assert_eq!(client.take_deferred_error(), None);
        server.fail(CudaError::ILLEGAL_ADDRESS);
        server.fail(CudaError::LAUNCH_FAILED);
        assert_eq!(client.sticky_error(), Some(CudaError::ILLEGAL_ADDRESS));
        assert!(client.last_words().is_empty() && !client.has_text());
        server.leave_last_words(b"x.cu:7: it failed");
        server.announce_text(true);
        assert_eq!(client.last_words(), b"x.cu:7: it failed");
        assert!(client.has_text());
        server.staging().release(7);
        assert_eq!(client.staging().released(), 7);
    }

    #[test]
    fn another_version_and_an_unready_channel_are_told_apart() {
        let (channel, file) = MappedChannel::create().unwrap();
        channel.header.version.store(99, Ordering::Release);
        assert!(matches!(MappedChannel::open(&file), Err(ChannelError::Version { theirs: 99 })));
        channel.header.version.store(0, Ordering::Release);
        assert!(matches!(MappedChannel::open(&file), Err(ChannelError::NotReady)));
        let small = create_sealed("small", 4096).unwrap();
        assert!(matches!(MappedChannel::open(&small), Err(ChannelError::Memory(_))));
    }
}
