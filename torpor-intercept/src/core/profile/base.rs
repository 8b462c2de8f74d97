//! A moment that the clocks of GPU and host both know.
//!
//! Events tell how far they are apart, as milliseconds in 32 bits, and never when they were. So one is recorded and waited for
//! at once: its time is between two times of the host.

use super::host_ns;
use crate::core::{CudaResult, Event, Stream};

/// How long one is good: the clocks drift, and after 2 s a `float` of milliseconds has steps of more than 0.1 µs.
const LIFETIME_NS: u64 = 1_000_000_000;

/// The two times of the host are to be this close; when they are not, it is tried again.
const CLOSE_NS: u64 = 100_000;
const TRIES: usize = 3;

/// An event whose time is known.
pub(super) struct Base {
    event: &'static Event,
    at_ns: u64,
}

impl Base {
    /// Records one in a stream without other work, and waits for it. It continues the one before as far as it can, so that work
    /// is in order across both.
    ///
    /// # Errors
    /// What recording and waiting give.
    pub(super) fn take(stream: &'static Stream, before: Option<&Self>) -> CudaResult<Self> {
        let (mut took, mut base) = Self::take_once(stream)?;
        for _ in 1..TRIES {
            if took < CLOSE_NS {
                break;
            }
            let other = Self::take_once(stream)?;
            if other.0 < took {
                (took, base) = other;
            }
        }
        if let Some(before) = before {
            let (earliest, latest) = (base.at_ns - took / 2, base.at_ns + took / 2);
            base.at_ns = before.time_of(base.event)?.clamp(earliest, latest);
        }
        Ok(base)
    }

    /// And how long the host does not know better.
    fn take_once(stream: &'static Stream) -> CudaResult<(u64, Self)> {
        let event = Event::create(0)?;
        let mut base = Self { event, at_ns: 0 };
        let before = host_ns();
        event.record(stream, 0)?;
        event.wait_until_reached()?;
        let took = host_ns() - before;
        base.at_ns = before + took / 2;
        Ok((took, base))
    }

    pub(super) fn is_old(&self) -> bool {
        host_ns().saturating_sub(self.at_ns) > LIFETIME_NS
    }

    /// The host's time of another event's record.
    ///
    /// # Errors
    /// `NOT_READY` while that is not reached.
    pub(super) fn time_of(&self, event: &Event) -> CudaResult<u64> {
        let offset = nanoseconds(event.elapsed_since(self.event)?);
        Ok(self.at_ns.saturating_add_signed(offset))
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        // A connection that fails has no events any more.
        let _ = self.event.destroy();
    }
}

/// What [`Event::elapsed_since`] gives, in nanoseconds.
pub(super) fn nanoseconds(milliseconds: f32) -> i64 {
    (f64::from(milliseconds) * 1e6).round() as i64
}
