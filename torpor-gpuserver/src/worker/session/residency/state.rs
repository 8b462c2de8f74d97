//! What a session knows of its client's residency.

use crate::rate_limited::Seldom;
use crate::worker::session::lean::{Course, Lean, Span, Unfit};
use crate::worker::session::pull::Former;
use crate::worker::session::swap_in::SwapIn;
use crate::worker::session::tenure::Tenure;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use torpor_proto::control::worker::Writeback;

/// A program that has thought for longer counts as busy again after a few answers.
const LONGEST_THOUGHT: Duration = Duration::from_secs(1);

/// A program that thinks for longer has other things to do, and an answer to give when it asks now and then. One that thinks less is put out
/// in the middle of its work, and waits for others' turns as they for its.
const SOON: Duration = Duration::from_millis(50);

/// How it is known that a client has a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker::session) enum Origin {
    /// From its commands: when it pauses, it may be over.
    Inferred,
    /// Somebody has told of its beginning, and will tell of its end.
    Told,
}

/// Which part of its life a client is in, what of it is on the GPU, and what the next swap-in begins with.
#[derive(Debug)]
pub(crate) struct Residency {
    pub(in crate::worker::session) active: bool,
    /// It has its turn and work, and is counted for that.
    pub(in crate::worker::session) uses_gpu: bool,
    /// It comes because the operator wants it, not for a command.
    pub(in crate::worker::session) loading: bool,
    /// How it is known that there is a request.
    pub(in crate::worker::session) origin: Origin,
    /// The turn, while it is active.
    pub(crate) tenure: Tenure,
    /// How long it took to bring its memory the last time that some was missing.
    pub(crate) way: Duration,
    pub(in crate::worker::session) writeback: Writeback,
    /// What the client had before its first request was over is in the host store: see [`Writeback::Never`].
    pub(in crate::worker::session) settled: bool,
    /// What is on the GPU may be other than at the last snapshot.
    pub(in crate::worker::session) has_changed: bool,
    /// Something was copied back to the host during this request.
    pub(crate) answered: bool,
    /// When its program last waited for the GPU, if it has asked for nothing since.
    pub(in crate::worker::session) waited_until: Option<Instant>,
    /// How long its program thinks when it has been given what it waited for.
    pub(in crate::worker::session) thought: Duration,
    /// When its session last saw that it had asked for nothing.
    pub(in crate::worker::session) looked: Instant,
    /// How long it thought the last time.
    pub(in crate::worker::session) last_thought: Duration,
    /// Segments in the order in which the last request that began with a swap-in touched them first.
    pub(crate) order: Vec<u64>,
    /// The order of this request, if it began with a swap-in.
    pub(crate) touched: Option<Vec<u64>>,
    /// The client has tensor maps whose addresses cannot be seen in their words, wherever it keeps these.
    pub(crate) packs_addresses: bool,
    /// All memory is brought before anything runs.
    pub(crate) whole: bool,
    /// It has exported something that other clients may have, or imported something.
    pub(crate) shares: bool,
    /// Memory that it shares was brought since a request was counted last.
    pub(crate) has_brought_shared: bool,
    /// What other clients have exported may be at another GPU's worker.
    pub(crate) may_seek: bool,
    /// A kernel runs that did not wait for all memory, see [`Link::ran_ahead`](crate::worker::mailbox::Link::ran_ahead).
    pub(crate) is_ahead: bool,
    /// The swap-in that this request began with, while there is something left to bring.
    pub(crate) swap_in: Option<SwapIn>,
    /// When the last swap-in began, until all of it is seen to have come.
    pub(crate) coming_since: Option<Instant>,
    /// It is active with a part of its memory.
    pub(crate) lean: Option<Box<Lean>>,
    /// In which order it used its memory when it was.
    pub(crate) course: Course,
    /// It was not fit for that.
    pub(crate) unfit: Unfit,
    /// Its turn, if that is one with all of its memory, and how many commands a second the last one had.
    pub(crate) whole_turn: Option<Span>,
    pub(crate) whole_pace: Option<f64>,
    /// Snapshots behind work of its.
    pub(crate) snapshots: u32,
    /// What its memory leads to is known from the last snapshot and, since then, of these segments: it was lean whenever it worked.
    pub(crate) is_surveyed: bool,
    pub(crate) written: HashSet<u64>,
    /// Where its memory may still be that was served elsewhere before, until it is brought.
    pub(crate) former: Option<Former>,
    /// The store's slots must be asked for again.
    pub(crate) lease_lost: bool,
    /// Chunks that the client's state tells of, and its memory has other contents than by now: see `generations.rs`.
    pub(in crate::worker::session) superseded: Vec<u64>,
    /// It goes on from a state, and may refer to more of the host store than that tells of.
    pub(in crate::worker::session) came_as_state: bool,
    /// Chunks that may have equals in the host store, see `dedup.rs`.
    pub(crate) unidentified: bool,
    /// Those of them that are looked for first have been.
    pub(crate) is_looked_through: bool,
    /// Allocations beyond the client's limit.
    pub(crate) refusals: Seldom,
    /// Times that there was no room on the GPU.
    pub(crate) exhaustions: Seldom,
    /// Times that the host store or the driver would not save its memory, or give it back.
    pub(crate) unsaved: Seldom,
}

impl Residency {
    pub(crate) fn new(writeback: Writeback) -> Self {
        Self {
            active: false,
            uses_gpu: false,
            loading: false,
            origin: Origin::Inferred,
            tenure: Tenure::new(),
            way: Duration::ZERO,
            writeback,
            settled: false,
            has_changed: false,
            answered: false,
            waited_until: None,
            thought: Duration::ZERO,
            looked: Instant::now(),
            last_thought: Duration::MAX,
            order: Vec::new(),
            touched: None,
            packs_addresses: false,
            whole: false,
            shares: false,
            has_brought_shared: false,
            may_seek: false,
            is_ahead: false,
            swap_in: None,
            coming_since: None,
            lean: None,
            course: Course::default(),
            unfit: Unfit::default(),
            whole_turn: None,
            whole_pace: None,
            snapshots: 0,
            is_surveyed: false,
            written: HashSet::new(),
            former: None,
            lease_lost: false,
            superseded: Vec::new(),
            came_as_state: false,
            unidentified: false,
            is_looked_through: false,
            refusals: Seldom::default(),
            exhaustions: Seldom::default(),
            unsaved: Seldom::default(),
        }
    }

    /// Whether everything is to come, for the operator.
    pub(crate) fn is_loading(&self) -> bool {
        self.loading
    }

    /// Whether what kernels write is dropped when the client leaves the GPU.
    pub(crate) fn drops_writes(&self) -> bool {
        self.settled && self.writeback == Writeback::Never
    }

    /// The program has asked for something again, for nothing since then. The longest of its last few thoughts counts: not each
    /// answer ends a request.
    pub(crate) fn note_thought(&mut self, idle_since: Instant) {
        let waited = self.waited_until.take();
        // The session may have saved its memory meanwhile, or left the GPU, which is none of it.
        self.last_thought = self.looked.saturating_duration_since(waited.unwrap_or(idle_since));
        if waited.is_some() {
            self.thought = self.last_thought.min(LONGEST_THOUGHT).max(self.thought / 2);
        }
    }

    /// Whether its program has asked again as soon as it was given what it waited for, or does so now.
    pub(in crate::worker::session) fn asks_again_soon(&self) -> bool {
        self.waited_until.map_or(self.last_thought, |waited| waited.elapsed()) < SOON
    }

    /// A kernel, copy or fill names this segment.
    pub(crate) fn touch(&mut self, segment: u64) {
        if let Some(lean) = &mut self.lean {
            lean.name(segment);
        }
        if let Some(touched) = &mut self.touched
            && !touched.contains(&segment)
        {
            touched.push(segment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_session_did_meanwhile_is_no_thought_of_its_program() {
        let ms = Duration::from_millis;
        let now = Instant::now();
        let mut residency = Residency::new(Writeback::Changed);
        // It was seen to think for 5 ms; then its memory left, and the command was there.
        (residency.waited_until, residency.looked) = (Some(now - ms(300)), now - ms(295));
        residency.note_thought(now);
        assert_eq!((residency.last_thought, residency.thought), (ms(5), ms(5)));
        assert!(residency.asks_again_soon());
        (residency.waited_until, residency.looked) = (Some(now - ms(300)), now);
        residency.note_thought(now);
        assert!(residency.thought == ms(300) && !residency.asks_again_soon());
    }
}
