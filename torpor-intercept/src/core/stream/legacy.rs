//! Legacy default streams: one for each device that the program sees, and one for each of their green
//! contexts. That of the first device is number 0 and always there.

use super::{LEGACY_ID, NEXT_ID, STREAMS, Stream};
use crate::core::{Client, CudaResult, devices, green};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use torpor_proto::command::{LEGACY_STREAM, StreamCreate, device_of};
use torpor_proto::error::CudaError;

static FIRST: Stream = Stream::new(0, LEGACY_ID, (LEGACY_STREAM, 0), 0);

/// By ordinal; the first is not used.
static OTHERS: [OnceLock<&'static Stream>; devices::MOST] = [const { OnceLock::new() }; devices::MOST];

impl Stream {
    /// The legacy default stream of a context.
    #[inline]
    pub(in crate::core) fn legacy_of(place: u32) -> &'static Self {
        if place == 0 { &FIRST } else { Self::other_legacy(place) }
    }

    /// That of the calling thread's current context.
    #[inline]
    pub(in crate::core) fn legacy() -> &'static Self {
        Self::legacy_of(devices::current_place())
    }

    #[cold]
    fn other_legacy(place: u32) -> &'static Self {
        let of_device = || OTHERS.get(device_of(place) as usize).and_then(OnceLock::get).copied();
        let of_green = green::legacy_number(place).and_then(|number| STREAMS.numbered(number));
        of_green.or_else(of_device).unwrap_or(&FIRST)
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
            client.post(&StreamCreate { stream, flags, priority: 0, context: device }, &[])?;
            if let Some(place) = OTHERS.get(device as usize) {
                let _ = place.set(made);
            }
        }
        Ok(())
    }

    /// Whether it is the legacy default stream of its context.
    #[inline]
    #[must_use]
    pub fn is_legacy(&self) -> bool {
        self.kind() == LEGACY_STREAM
    }
}
