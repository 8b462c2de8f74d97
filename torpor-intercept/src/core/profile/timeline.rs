//! What is under way, and what is over.

use super::base::{Base, nanoseconds};
use super::pairs::{Pair, Pairs};
use super::{HAS_FINISHED, LOST, Work, host_ns};
use crate::core::{CudaResult, Stream};
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use torpor_proto::error::CudaError;

/// `CU_STREAM_NON_BLOCKING`
const NON_BLOCKING: u32 = 1;

/// How many are collected at once when pairs are used up, so that the program does not wait for all of them.
const SOME: usize = 256;

/// Work that is over.
#[derive(Clone, Copy)]
pub struct Finished {
    /// What it was.
    pub work: Work,
    /// [`Stream::id`].
    pub stream: u64,
    /// The call that posted it.
    pub call: u32,
    /// Its start, by [`super::host_ns`].
    pub start_ns: u64,
    /// Its end.
    pub end_ns: u64,
}

/// Work between two events.
pub(super) struct Interval {
    pub(super) work: Work,
    pub(super) stream: u64,
    pub(super) call: u32,
    pub(super) posted_ns: u64,
    /// When it was known to be over, if a synchronisation told.
    pub(super) seen_ns: u64,
    pub(super) pair: Pair,
    pub(super) base: Arc<Base>,
}

/// Of the whole process.
pub(super) struct Timeline {
    /// For bases alone.
    stream: Option<&'static Stream>,
    base: Option<Arc<Base>>,
    pairs: Pairs,
    under_way: VecDeque<Interval>,
    /// In all.
    posted: u64,
    finished: Vec<Finished>,
}

pub(super) struct SharedTimeline(Mutex<Timeline>);

pub(super) static TIMELINE: SharedTimeline = SharedTimeline(Mutex::new(Timeline {
    stream: None,
    base: None,
    pairs: Pairs::new(),
    under_way: VecDeque::new(),
    posted: 0,
    finished: Vec::new(),
}));

impl SharedTimeline {
    pub(super) fn lock(&self) -> MutexGuard<'_, Timeline> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Timeline {
    /// Events for an interval, and what their times are told by.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY` if too much is under way, or what making events gives.
    pub(super) fn begin(&mut self) -> CudaResult<(Pair, Arc<Base>)> {
        if self.pairs.are_used_up() {
            self.collect(SOME);
        }
        let base = self.base()?;
        Ok((self.pairs.take()?, base))
    }

    fn base(&mut self) -> CudaResult<Arc<Base>> {
        if let Some(base) = self.base.as_ref().filter(|base| !base.is_old()) {
            return Ok(base.clone());
        }
        let stream = match self.stream {
            Some(stream) => stream,
            None => *self.stream.insert(Stream::create(NON_BLOCKING, 0)?),
        };
        let base = Base::take(stream, self.base.as_deref())?;
        Ok(self.base.insert(Arc::new(base)).clone())
    }

    pub(super) fn end(&mut self, interval: Interval) {
        self.under_way.push_back(interval);
        self.posted += 1;
    }

    /// How many pieces of work have been posted.
    pub(super) fn posted(&self) -> u64 {
        self.posted
    }

    /// That many of them are known to be over by now.
    pub(super) fn mark_seen(&mut self, posted: u64, now_ns: u64) {
        let newer = usize::try_from(self.posted - posted).unwrap_or(usize::MAX);
        let unmarked = self.under_way.iter_mut().rev().skip(newer);
        unmarked.take_while(|interval| interval.seen_ns == u64::MAX).for_each(|it| it.seen_ns = now_ns);
    }

    /// Of work that was not posted.
    pub(super) fn forget(&mut self, pair: Pair) {
        self.pairs.give_back(pair);
    }

    /// Looks which of the oldest ones are over, until so many are found. What is behind another in its stream is over later.
    pub(super) fn collect(&mut self, most: usize) {
        let (mut waiting, mut behind) = (VecDeque::new(), HashSet::new());
        let mut found = Vec::new();
        while found.len() < most {
            let Some(interval) = self.under_way.pop_front() else { break };
            if behind.contains(&interval.stream) {
                waiting.push_back(interval);
                continue;
            }
            match interval.measured() {
                Ok(measured) => found.push(measured),
                Err(CudaError::NOT_READY) => {
                    behind.insert(interval.stream);
                    waiting.push_back(interval);
                    continue;
                }
                Err(_) => _ = LOST.fetch_add(1, Ordering::Relaxed),
            }
            self.pairs.give_back(interval.pair);
        }
        waiting.append(&mut self.under_way);
        self.under_way = waiting;
        self.finished.extend(placed(&found));
        HAS_FINISHED.store(!self.finished.is_empty(), Ordering::Relaxed);
    }

    pub(super) fn take_finished(&mut self) -> Vec<Finished> {
        std::mem::take(&mut self.finished)
    }
}

/// Work that is over, and between which times of the host it was.
struct Measured {
    work: Finished,
    posted_ns: u64,
    seen_ns: u64,
}

impl Interval {
    /// # Errors
    /// `NOT_READY` while it is not over.
    fn measured(&self) -> CudaResult<Measured> {
        let took = nanoseconds(self.pair.end.elapsed_since(self.pair.start)?).max(0).cast_unsigned();
        let start_ns = self.base.time_of(self.pair.start)?;
        let Self { work, stream, call, posted_ns, seen_ns, .. } = *self;
        let work = Finished { work, stream, call, start_ns, end_ns: start_ns + took };
        Ok(Measured { work, posted_ns, seen_ns: seen_ns.min(host_ns()) })
    }
}

/// Work as it is told. The clocks are compared to some microseconds only, and work neither begins before it was posted nor ends after
/// it was seen to be over: what that says of one piece holds for all of them, so that their order and lengths stay.
fn placed(found: &[Measured]) -> impl Iterator<Item = Finished> {
    let shift_ns = shift(found);
    found.iter().map(move |measured| {
        let Finished { start_ns, end_ns, .. } = measured.work;
        let took = end_ns - start_ns;
        let start_ns = start_ns.saturating_add_signed(shift_ns);
        Finished { start_ns, end_ns: start_ns + took, ..measured.work }
    })
}

/// The least shift that puts everything where it can have been; if none does, nothing begins too early.
fn shift(found: &[Measured]) -> i64 {
    let signed = |later: u64, earlier: u64| later.wrapping_sub(earlier).cast_signed();
    let least = found.iter().map(|it| signed(it.posted_ns, it.work.start_ns)).max().unwrap_or(0);
    let most = found.iter().map(|it| signed(it.seen_ns, it.work.end_ns)).min().unwrap_or(0);
    0.min(most).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fill between two times of the host.
    fn measured((start_ns, end_ns): (u64, u64), posted_ns: u64, seen_ns: u64) -> Measured {
        let work = Work::Fill { bytes: 1, value: 0 };
        let work = Finished { work, stream: 1, call: 0, start_ns, end_ns };
        Measured { work, posted_ns, seen_ns }
    }

    fn times(found: &[Measured]) -> Vec<(u64, u64)> {
        placed(found).map(|work| (work.start_ns, work.end_ns)).collect()
    }

    #[test]
    fn work_that_can_have_been_there_stays_there() {
        let found = [measured((500, 510), 100, 1000), measured((510, 550), 200, 1000)];
        assert_eq!(times(&found), [(500, 510), (510, 550)]);
        assert_eq!(times(&[]), []);
    }

    #[test]
    fn a_clock_that_is_late_or_early_is_so_for_all_and_their_order_and_lengths_stay() {
        // The longer one would come first if each was moved for itself.
        let late = [measured((990, 1000), 100, 980), measured((1000, 1040), 200, 980)];
        assert_eq!(times(&late), [(930, 940), (940, 980)]);
        let early = [measured((90, 95), 100, 1000), measured((95, 99), 150, 1000)];
        assert_eq!(times(&early), [(145, 150), (150, 154)]);
    }

    #[test]
    fn nothing_begins_before_its_post_even_if_it_took_longer_than_there_was_time() {
        assert_eq!(times(&[measured((50, 5050), 100, 1000)]), [(100, 5100)]);
    }

    #[test]
    fn milliseconds_of_events_become_nanoseconds() {
        assert_eq!(nanoseconds(0.002_048), 2048);
        assert_eq!(nanoseconds(-1.5), -1_500_000);
    }
}
