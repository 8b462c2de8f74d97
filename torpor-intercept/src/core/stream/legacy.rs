//! Legacy default streams: one for each device that the program sees. That of the first is number 0 and always there.

use super::{LEGACY_ID, NEXT_ID, STREAMS, Stream};
use crate::core::devices;
use crate::core::{Client, CudaResult};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use torpor_proto::command::{LEGACY_STREAM, StreamCreate};
use torpor_proto::error::CudaError;

static FIRST: Stream = Stream::new(0, LEGACY_ID, (LEGACY_STREAM, 0), 0);

/// By ordinal; the first is not used.
static OTHERS: [OnceLock<&'static Stream>; devices::MOST] = [const { OnceLock::new() }; devices::MOST];

impl Stream {
    /// The legacy default stream of a device.
    #[inline]
    pub(in crate::core) fn legacy_of(device: u32) -> &'static Self {
        if device == 0 { &FIRST } else { Self::other_legacy(device) }
    }

    /// That of the calling thread's current device.
    #[inline]
    pub(in crate::core) fn legacy() -> &'static Self {
        if devices::are_several() { Self::other_legacy(devices::current()) } else { &FIRST }
    }

    #[cold]
    fn other_legacy(device: u32) -> &'static Self {
        OTHERS.get(device as usize).and_then(OnceLock::get).copied().unwrap_or(&FIRST)
    }

    /// Makes those of all devices but the first, for a process that has just become a client.
    ///
    /// # Errors
    /// What posting gives.
    pub(in crate::core) fn create_legacies(client: &Client) -> CudaResult<()> {
        for device in 1..client.device_count() {
            let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
            // No stream was there before, and none of these is ever destroyed.
            let made = STREAMS.insert(|number| Self::new(number, id, (LEGACY_STREAM, device), 0), |_| ());
            let made = made.ok_or(CudaError::OUT_OF_MEMORY)?;
            let (stream, flags) = (made.number, LEGACY_STREAM);
            client.post(&StreamCreate { stream, flags, priority: 0, device }, &[])?;
            if let Some(place) = OTHERS.get(device as usize) {
                let _ = place.set(made);
            }
        }
        Ok(())
    }

    /// Whether it is the legacy default stream of its device.
    #[inline]
    #[must_use]
    pub fn is_legacy(&self) -> bool {
        self.kind() == LEGACY_STREAM
    }
}
