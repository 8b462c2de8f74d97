//! Two events around a post.

use super::base::Base;
use super::pairs::Pair;
use super::timeline::{Interval, TIMELINE};
use super::{CALL, LOST, Work, WorkKind, host_ns, is_wanted};
use crate::core::stream::Turn;
use crate::core::{CudaResult, Stream};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Begun in front of a post, if anybody wants that kind of work; to be ended behind it.
#[must_use]
pub(in crate::core) struct Bracket(Option<Box<Open>>);

struct Open {
    work: Work,
    stream: &'static Stream,
    posted_ns: u64,
    pair: Option<Pair>,
    base: Arc<Base>,
}

impl Bracket {
    /// Without effect in a capture: nothing is on the GPU then.
    ///
    /// # Errors
    /// Those of earlier posted commands, which the post would have given.
    #[inline]
    pub(in crate::core) fn begin(
        kind: WorkKind,
        stream: &'static Stream,
        work: impl FnOnce() -> Work,
    ) -> CudaResult<Self> {
        if !is_wanted(kind) {
            return Ok(Self(None));
        }
        Self::begin_wanted(stream, work())
    }

    #[cold]
    fn begin_wanted(stream: &'static Stream, work: Work) -> CudaResult<Self> {
        if stream.is_capturing() {
            return Ok(Self(None));
        }
        let Ok((pair, base)) = TIMELINE.lock().begin() else {
            LOST.fetch_add(1, Ordering::Relaxed);
            return Ok(Self(None));
        };
        let open = Open { work, stream, posted_ns: host_ns(), pair: Some(pair), base };
        pair.start.record(stream, 0)?;
        Ok(Self(Some(Box::new(open))))
    }

    /// Behind a post that succeeded. Dropped instead, it never was.
    ///
    /// # Errors
    /// As [`Self::begin`].
    #[inline]
    pub(in crate::core) fn end(self) -> CudaResult<()> {
        self.end_in(None)
    }

    /// As [`Self::end`], for who has a turn.
    ///
    /// # Errors
    /// As [`Self::begin`].
    #[inline]
    pub(in crate::core) fn end_in(self, turn: Option<&Turn>) -> CudaResult<()> {
        match self.0 {
            None => Ok(()),
            Some(open) => open.end(turn),
        }
    }
}

impl Open {
    #[cold]
    fn end(mut self, turn: Option<&Turn>) -> CudaResult<()> {
        let Some(pair) = self.pair else { return Ok(()) };
        pair.end.record_in(self.stream, 0, turn)?;
        self.pair = None;
        let interval = Interval {
            work: self.work,
            stream: self.stream.id(),
            call: CALL.get(),
            posted_ns: self.posted_ns,
            seen_ns: u64::MAX,
            pair,
            base: self.base.clone(),
        };
        TIMELINE.lock().end(interval);
        Ok(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(pair) = self.pair.take() {
            TIMELINE.lock().forget(pair);
        }
    }
}

/// A post between two events, if anybody wants that kind of work.
///
/// # Errors
/// Those of the post, or of earlier posted commands.
#[inline]
pub(in crate::core) fn bracketed<T>(
    kind: WorkKind,
    stream: &'static Stream,
    work: impl FnOnce() -> Work,
    post: impl FnOnce() -> CudaResult<T>,
) -> CudaResult<T> {
    let bracket = Bracket::begin(kind, stream, work)?;
    let posted = post()?;
    bracket.end()?;
    Ok(posted)
}
