//! A call of the program as a record.

use super::callback_ids::{CallbackId, find};
use super::record::ApiRecord;
use super::{activity, buffers, clock, external};
use crate::core::{CudaResult, is_forked_child, profile};
use std::sync::atomic::{AtomicU32, Ordering};

/// A call that has begun.
pub(crate) struct TracedCall {
    id: CallbackId,
    correlation: u32,
    start: u64,
}

impl TracedCall {
    /// `None` for functions that profilers do not see, and for what the program does when it is asked for a buffer.
    pub(crate) fn begin(function: &str) -> Option<Self> {
        /// Numbers begin at 1, as CUPTI's.
        static NEXT: AtomicU32 = AtomicU32::new(1);
        if is_forked_child() || buffers::is_in_callback() {
            return None;
        }
        let id = find(function)?;
        let correlation = NEXT.fetch_add(1, Ordering::Relaxed);
        profile::enter_call(correlation);
        buffers::prepare();
        Some(Self { id, correlation, start: clock::now() })
    }

    /// Writes what is known of it, and of earlier work that was found to be over meanwhile.
    pub(crate) fn end(self, outcome: CudaResult<()>) {
        let Self { id, correlation, start } = self;
        let end = clock::now();
        profile::enter_call(0);
        external::write(correlation);
        if id.api.wanted().has(id.number) {
            buffers::write(&ApiRecord {
                kind: id.api as u32,
                callback: id.number,
                start,
                end,
                process: std::process::id(),
                thread: this_thread(),
                correlation,
                result: outcome.map_or_else(|error| error.0, |()| 0),
            });
        }
        if let Some(finished) = profile::collected() {
            activity::write(&finished);
        }
    }
}

/// Kineto knows threads by the lower half of `pthread_self`, as CUPTI does.
fn this_thread() -> u32 {
    // SAFETY: pthread_self has no conditions.
    unsafe { libc::pthread_self() as u32 }
}
