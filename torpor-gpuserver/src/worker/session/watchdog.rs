//! Kernels that do not end: nothing ends one but the end of its context, so a function that may have a `kernel_timeout` has
//! the worker replaced when a kernel of it runs longer.
//!
//! A fence is put behind each launch of such a function ([`Link::watched`]). Time in which kernels may wait for something else does
//! not count: for memory that is on its way, or, once the timeout, for another client whose work went on without a turn before they
//! were launched. A session that is stuck in the driver does not look; the warden does.

use crate::worker::gpu::Shared;
use crate::worker::mailbox::Link;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
            let is_arriving = self.is_arriving();
            if let Some(overdue) = self.streams.watched.look(is_arriving) {
                self.shared.condemn(&self.link, &overdue);
            }
        }
        Ok(busy)
    }
}
