//! Kernels of a client that have to end in time, as its session and the warden see them by the fences behind them.
//!
//! As long as fences are reached, kernels end; when none has been for the timeout while work is left, one does not.

use crate::worker::words::{Fence, Words};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long memory may be on its way to a client whose session is stuck, and cannot say that it has come.
const ARRIVAL: Duration = Duration::from_mins(1);

/// How much longer a launch may last than what is launched: most that last so are held back by a neighbour's kernel, which may be long.
const LAUNCH: Duration = Duration::from_secs(10);

/// The kernels of a client that have not ended.
#[derive(Debug)]
pub(crate) struct Watched {
    /// How long one may run.
    timeout: Option<Duration>,
    /// Where the fences are seen; `None` before the session has any, and once it has given them back.
    words: Option<Arc<dyn Words>>,
    fences: Vec<Fence>,
    /// Since when the session launches something whose fence is not among these yet.
    launching: Option<Instant>,
    /// When the last one ended or waited for memory, or when the first one of these was launched.
    begun: Instant,
    /// How many overstays there had been by then: later ones keep none of these kernels waiting.
    overstays: u64,
    /// Until when earlier overstays have excused it.
    since: Instant,
    /// When the session was last seen to do something.
    looked: Instant,
    /// Whether memory was on its way then.
    is_arriving: bool,
}

/// A kernel that has run for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overdue {
    /// What it may have.
    pub(crate) timeout: Duration,
    /// Since when it has had that.
    pub(crate) since: Instant,
    /// Whether it has run at all, and waited for nobody else.
    pub(crate) is_certain: bool,
}

impl Watched {
    /// None, and no limit.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            timeout: None,
            words: None,
            fences: Vec::new(),
            launching: None,
            begun: now,
            overstays: 0,
            since: now,
            looked: now,
            is_arriving: false,
        }
    }

    /// The session's fences are seen in these words, until [`Self::withdraw`].
    pub(crate) fn see_in(&mut self, words: Arc<dyn Words>) {
        self.words = Some(words);
    }

    /// The session has no kernels any more, and its words will be another one's.
    pub(crate) fn withdraw(&mut self) {
        self.limit(None);
        self.words = None;
    }

    /// Sets the timeout. What was launched before is not watched any more.
    pub(crate) fn limit(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
        self.fences.clear();
        self.launching = None;
    }

    /// The session is about to launch something.
    pub(crate) fn begin_launch(&mut self, now: Instant, is_arriving: bool) {
        self.launching = Some(now);
        self.saw(now, is_arriving);
    }

    /// It has; the fence is behind it. Without, it has ended already, or was not launched. `overstays`: how many there have been.
    pub(crate) fn end_launch(&mut self, now: Instant, fence: Option<Fence>, overstays: u64) {
        self.launching = None;
        self.looked = now;
        if let Some(fence) = fence {
            if self.fences.is_empty() {
                self.begin(now, overstays);
            }
            self.fences.push(fence);
        }
    }

    /// The session looks. `excuses`: whether work goes on without a turn that is one of so many first overstays.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        is_arriving: bool,
        overstays: u64,
        excuses: impl FnOnce(u64) -> bool,
    ) -> Option<Overdue> {
        self.saw(now, is_arriving);
        self.overdue(now, overstays, excuses)
    }

    /// As [`Self::look`], by somebody else: a session that looks for itself is left alone.
    pub(crate) fn look_for_stuck(
        &mut self,
        now: Instant,
        overstays: u64,
        excuses: impl FnOnce(u64) -> bool,
    ) -> Option<Overdue> {
        let timeout = self.timeout?;
        let patience = if self.is_arriving { timeout + ARRIVAL } else { timeout };
        let lasts = |since: Instant, patience| now.saturating_duration_since(since) > patience;
        let overdue = self.overdue(now, overstays, excuses);
        if !lasts(self.looked, patience) {
            return None;
        }
        let may_be = |since| Overdue { timeout, since, is_certain: false };
        let launching = || self.launching.filter(|&since| lasts(since, patience + LAUNCH)).map(may_be);
        let waiting = || (self.is_arriving && !self.fences.is_empty()).then(|| may_be(self.looked));
        overdue.or_else(launching).or_else(waiting)
    }

    fn saw(&mut self, now: Instant, is_arriving: bool) {
        (self.looked, self.is_arriving) = (now, is_arriving);
    }

    /// The time of those that are left begins.
    fn begin(&mut self, now: Instant, overstays: u64) {
        (self.begun, self.since, self.overstays) = (now, now, overstays);
    }

    fn overdue(
        &mut self,
        now: Instant,
        overstays: u64,
        excuses: impl FnOnce(u64) -> bool,
    ) -> Option<Overdue> {
        let (timeout, words) = (self.timeout?, self.words.as_deref()?);
        let before = self.fences.len();
        self.fences.retain(|fence| !fence.is_reached(words));
        if self.fences.len() < before || self.is_arriving {
            self.begin(now, overstays);
        }
        if self.fences.is_empty() {
            return None;
        }
        let lasts = |since: Instant| now.saturating_duration_since(since) > timeout;
        // An overstay may be of work that never ends, so it excuses no more than once the timeout.
        if !lasts(self.begun) && excuses(self.overstays) {
            self.since = now;
        }
        let is_certain = self.since == self.begun;
        lasts(self.since).then_some(Overdue { timeout, since: self.since, is_certain })
    }
}

#[cfg(test)]
mod tests;
