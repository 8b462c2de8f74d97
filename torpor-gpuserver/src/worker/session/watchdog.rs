//! Kernels that do not end: nothing ends one but the end of its context, so a function that may have a `kernel_timeout` has
//! the worker replaced when a kernel of it runs longer.
//!
//! A fence is put behind each launch of such a function. As long as fences are reached, kernels end; when none has been for the
//! timeout while work is left, one does not. Time in which kernels may wait for something else does not count: for memory that
//! is on its way, or for another client whose work goes on without a turn.

use crate::worker::gpu::Shared;
use crate::worker::mailbox::Link;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use torpor_proto::error::CudaError;

/// A client's work goes on without a turn: while this lives, what others post may wait for it.
#[derive(Debug)]
pub(crate) struct Overstay(Arc<Link>);

impl Overstay {
    pub(crate) fn begin(shared: &Shared, link: &Arc<Link>) -> Self {
        let number = shared.overstays.fetch_add(1, Ordering::Relaxed) + 1;
        link.overstays.store(number, Ordering::Relaxed);
        Self(link.clone())
    }
}

impl Drop for Overstay {
    fn drop(&mut self) {
        self.0.overstays.store(0, Ordering::Relaxed);
    }
}

impl Session {
    /// Asks the driver about every stream with work: whether any is left. Ends the worker if a kernel runs for too long.
    ///
    /// # Errors
    /// The context's.
    pub(crate) fn check(&mut self) -> Result<bool, Halt> {
        let busy = self.streams.check()?;
        if busy && self.streams.watched.is_limited() {
            if self.is_arriving() || self.shared.overstays_before(&self.link) {
                self.streams.watched.excuse();
            } else if let Some(timeout) = self.streams.watched.overdue(&self.streams.fences) {
                self.condemn(timeout);
            }
        }
        Ok(busy)
    }

    /// A kernel of the client does not end: the worker does.
    fn condemn(&self, timeout: Duration) {
        let Link { client, function, .. } = &*self.link;
        // Before everybody fails with the error of a context that somebody else has lost.
        self.link.channel.get().into_iter().for_each(|channel| channel.fail(CudaError::LAUNCH_TIMEOUT));
        let reason = format!(
            "a kernel of function {function} (client {client}) has run for longer than its kernel_timeout of {timeout:?}, \
             which only the end of this GPU's worker ends"
        );
        self.shared.lose(CudaError::LAUNCH_FAILED, reason, Some(*client));
    }
}
