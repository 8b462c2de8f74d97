//! Kernels that have to end in time: what their session tells of them where the warden sees it, too.

use crate::driver::PinnedWords;
use crate::worker::gpu::Shared;
use crate::worker::gpu::fence::Fence;
use crate::worker::mailbox::{Link, Overdue};
use crate::worker::memory::arrivals::Arrivals;
use crate::worker::streams::Streams;
use crate::worker::sync::lock;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use torpor_proto::error::CudaError;

/// The session's side of [`Link::watched`], which it withdraws in the end.
#[derive(Debug)]
pub(crate) struct Watching {
    shared: Arc<Shared>,
    link: Arc<Link>,
    /// What `link.watched` has, where a launch sees it without a lock.
    is_limited: bool,
}

impl Watching {
    /// Of a session whose fences are in these words.
    pub(super) fn new(shared: &Arc<Shared>, link: &Arc<Link>, words: Arc<PinnedWords>) -> Self {
        lock(&link.watched).see_in(words);
        Self { shared: shared.clone(), link: link.clone(), is_limited: false }
    }

    /// Sets the timeout in milliseconds; 0 for none.
    pub(crate) fn limit(&mut self, timeout_ms: u64) {
        self.is_limited = timeout_ms > 0;
        lock(&self.link.watched).limit(self.is_limited.then(|| Duration::from_millis(timeout_ms)));
    }

    /// Whether kernels are to be watched.
    #[inline]
    pub(crate) fn is_limited(&self) -> bool {
        self.is_limited
    }

    /// The kernel that runs for too long, if one does.
    pub(crate) fn look(&self, is_arriving: bool) -> Option<Overdue> {
        let excuses = |first| self.shared.overstays_before(&self.link, first);
        lock(&self.link.watched).look(Instant::now(), is_arriving, self.overstays(), excuses)
    }

    fn begin_launch(&self, is_arriving: bool) {
        lock(&self.link.watched).begin_launch(Instant::now(), is_arriving);
    }

    fn end_launch(&self, fence: Option<Fence>) {
        lock(&self.link.watched).end_launch(Instant::now(), fence, self.overstays());
    }

    fn overstays(&self) -> u64 {
        self.shared.overstays.load(Ordering::Relaxed)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        lock(&self.link.watched).withdraw();
    }
}

impl Streams {
    /// Launches something to a stream, which is watched if it has to end in time.
    #[inline]
    pub(crate) fn launch(
        &mut self,
        id: u32,
        arrivals: &Arrivals,
        launch: impl FnOnce(&mut Self) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        if self.watched.is_limited() { self.launch_watched(id, arrivals, launch) } else { launch(self) }
    }

    fn launch_watched(
        &mut self,
        id: u32,
        arrivals: &Arrivals,
        launch: impl FnOnce(&mut Self) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        if self.capture.is_some() {
            return launch(self);
        }
        self.watched.begin_launch(!arrivals.is_empty());
        let fence = launch(self).and_then(|()| self.fence(id));
        self.watched.end_launch(fence.ok().flatten());
        fence.map(|_| ())
    }
}
