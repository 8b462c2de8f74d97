//! The streams of a context: to go over them, and to end those of a green one with it.
//!
//! A stream whose context was destroyed is of no use any more, not even to be destroyed (cuda.h, cuGreenCtxDestroy). Its number is given
//! out again only when there is no other.

use super::{STREAMS, Stream, host_function};
use crate::core::CudaResult;
use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};
use torpor_proto::command::{StreamDestroy, includes};
use torpor_proto::error::CudaError;

/// Numbers of streams whose contexts were destroyed, the oldest first, with what the program has of them.
static ENDED: Mutex<VecDeque<(usize, u32)>> = Mutex::new(VecDeque::new());

fn ended() -> MutexGuard<'static, VecDeque<(usize, u32)>> {
    ENDED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a handle names no stream.
#[cold]
pub(super) fn why_gone(handle: *mut c_void) -> CudaError {
    match ended().iter().any(|&(ended, _)| ended == handle.addr()) {
        true => CudaError::CONTEXT_IS_DESTROYED,
        false => CudaError::INVALID_HANDLE,
    }
}

/// Lets the number of the stream that was ended first be given out again.
pub(super) fn forget_oldest() {
    if let Some((_, number)) = ended().pop_front() {
        STREAMS.give_back(number);
    }
}

impl Stream {
    /// The streams of a context, those of a device with its green ones'.
    pub(in crate::core) fn of_context(place: u32) -> impl Iterator<Item = &'static Self> {
        let first = includes(place, 0).then(|| Self::legacy_of(0));
        let others = STREAMS.all().filter(move |stream| includes(place, stream.place()));
        first.into_iter().chain(others)
    }

    /// Ends a stream of a green context that is about to go. Its work goes on.
    ///
    /// # Errors
    /// What posting gives.
    pub(in crate::core) fn end_with_context(&'static self) -> CudaResult<()> {
        if let Some(capture) = self.capture() {
            capture.invalidate();
            self.leave_capture(&capture);
        }
        let settled = self.settle_deferred();
        STREAMS.retire_for_ever(self.number);
        let ends = host_function::when_posted(move |client| {
            let posted = client.post(&StreamDestroy { stream: self.number, reserved: 0 }, &[]);
            ended().push_back((self.handle().addr(), self.number));
            posted
        });
        settled.and(ends)
    }
}
