//! Worth: whether a client gets enough done with a part of its memory.
//!
//! One that goes through its memory once for each answer does nearly as much as with all of it. One that does so for each word of an
//! answer would have its turn for a hundred times as long, where bringing everything once costs less. Nobody says which it is. But how fast
//! its commands are executed is known from its turns as a whole.

use crate::worker::session::Session;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// So much slower than in a turn as a whole it may be. Where two take turns that last as long as they cost, each works for a quarter of the
/// time: as much is lost for both as if the one did a sixteenth, and the other everything.
const TIMES: f64 = 16.0;

/// How long it is looked at before that is known.
const SPAN: Duration = Duration::from_secs(1);

/// A turn shorter than this says nothing.
const SHORTEST: Duration = Duration::from_millis(2);

/// What a client has done since some moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    since: Instant,
    commands: u64,
    /// How long it waited for its memory meanwhile, and could have executed commands.
    waited: Duration,
}

impl Span {
    fn commands_per_second(&self, commands: u64) -> f64 {
        commands.saturating_sub(self.commands) as f64 / self.since.elapsed().as_secs_f64()
    }
}

impl Session {
    fn commands(&self) -> u64 {
        self.link.usage.commands.load(Ordering::Relaxed)
    }

    /// From now on.
    pub(super) fn new_span(&self) -> Span {
        Span { since: Instant::now(), commands: self.commands(), waited: Duration::ZERO }
    }

    /// A turn with all of its memory begins.
    pub(in crate::worker::session) fn begin_whole_turn(&mut self) {
        self.residency.whole_turn = Some(self.new_span());
    }

    /// It is over.
    pub(in crate::worker::session) fn end_whole_turn(&mut self) {
        if let Some(turn) = self.residency.whole_turn.take()
            && turn.since.elapsed() >= SHORTEST
        {
            self.residency.whole_pace = Some(turn.commands_per_second(self.commands()));
        }
    }

    /// The client has waited for its memory since then. True if it does so all the time, and would be much faster as a whole.
    pub(super) fn is_too_slow(&mut self, since: Instant) -> bool {
        let (commands, next) = (self.commands(), self.new_span());
        let Some(lean) = &mut self.residency.lean else { return false };
        lean.span.waited += since.elapsed();
        lean.waited += since.elapsed();
        let elapsed = lean.span.since.elapsed();
        if elapsed < SPAN {
            return false;
        }
        let span = std::mem::replace(&mut lean.span, next);
        let pace = span.commands_per_second(commands);
        span.waited > elapsed / 2 && self.residency.whole_pace.is_some_and(|whole| whole > TIMES * pace)
    }
}
