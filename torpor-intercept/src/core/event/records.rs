//! What this process knows of an event's records.
//!
//! A record is begun, posted and ended. The worker answers about its own latest record, which is the last one here only if
//! none was under way meanwhile: threads may record an event while others wait for it.

use crate::core::graph::Edge;
use crate::core::stream::{Capture, Position, Stream};
use std::sync::Arc;

/// Where an event was recorded last.
#[derive(Clone, Default)]
pub(super) enum LastRecord {
    #[default]
    Never,
    /// After so many commands of the stream, of which so many are done when it is reached.
    At { stream: &'static Stream, position: Position, done: Position },
    /// It was reached.
    Reached,
    /// In a capture, after these nodes.
    In(Arc<Capture>, Arc<[Edge]>),
    /// By a launch, or by several threads at once: only the worker knows.
    Somewhere,
}

/// The records of one event.
#[derive(Default)]
pub(super) struct Records {
    last: LastRecord,
    begun: u64,
    under_way: u32,
}

/// A record that was begun.
#[must_use]
pub(in crate::core) struct Begun {
    number: u64,
    is_alone: bool,
}

/// A question to the worker: which record was the last when it was asked, if that was clear.
#[must_use]
pub(super) struct Asked(Option<u64>);

impl Records {
    /// Before a record is posted.
    pub(super) fn begin(&mut self) -> Begun {
        let is_alone = self.under_way == 0;
        self.begun += 1;
        self.under_way += 1;
        Begun { number: self.begun, is_alone }
    }

    /// After a record was posted; `None` if it was not.
    pub(super) fn end(&mut self, begun: &Begun, record: Option<LastRecord>) {
        // Of an event that was destroyed meanwhile and made anew, none is.
        self.under_way = self.under_way.saturating_sub(1);
        let is_ordered = begun.is_alone && begun.number == self.begun;
        match record {
            Some(record) if is_ordered => self.last = record,
            None if is_ordered => {}
            // The order in the ring is not known here.
            _ => self.last = LastRecord::Somewhere,
        }
    }

    /// The last record; `Somewhere` while one is under way.
    pub(super) fn last(&self) -> LastRecord {
        if self.under_way == 0 { self.last.clone() } else { LastRecord::Somewhere }
    }

    /// Before the worker is asked whether the event is reached.
    pub(super) fn ask(&self) -> Asked {
        Asked((self.under_way == 0).then_some(self.begun))
    }

    /// After it said yes: notes it, if it spoke of the last record.
    pub(super) fn answered(&mut self, asked: &Asked) {
        if asked.0 != Some(self.begun) || self.under_way > 0 {
            return;
        }
        if let LastRecord::At { stream, done, .. } = std::mem::replace(&mut self.last, LastRecord::Reached) {
            stream.mark_done_up_to(done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream with one command, and a record behind it.
    fn recorded() -> (&'static Stream, LastRecord) {
        let stream: &'static Stream = Box::leak(Box::new(Stream::for_tests()));
        let position = stream.position();
        (stream, LastRecord::At { stream, position, done: position })
    }

    fn is_done(stream: &Stream) -> bool {
        stream.is_done_up_to(stream.position())
    }

    #[test]
    fn an_answer_is_about_the_record_that_was_the_last_throughout() {
        let (stream, record) = recorded();
        let mut records = Records::default();
        let begun = records.begin();
        records.end(&begun, Some(record));
        let asked = records.ask();
        records.answered(&asked);
        assert!(is_done(stream) && matches!(records.last(), LastRecord::Reached));
    }

    #[test]
    fn an_answer_says_nothing_of_a_record_that_was_made_meanwhile() {
        let ((first_stream, first), (second_stream, second)) = (recorded(), recorded());
        let mut records = Records::default();
        let begun = records.begin();
        records.end(&begun, Some(first));
        let asked = records.ask();
        let begun = records.begin();
        let asked_between = records.ask();
        records.answered(&asked);
        assert!(!is_done(first_stream), "the worker may have spoken of the second");
        records.end(&begun, Some(second));
        records.answered(&asked);
        records.answered(&asked_between);
        assert!(!is_done(first_stream) && !is_done(second_stream));
        assert!(matches!(records.last(), LastRecord::At { .. }));
    }

    #[test]
    fn of_records_made_at_once_only_the_worker_knows_the_last() {
        let ((stream, first), (_, second), (_, third)) = (recorded(), recorded(), recorded());
        let mut records = Records::default();
        let (begun, beside) = (records.begin(), records.begin());
        records.end(&beside, Some(second));
        assert!(matches!(records.last(), LastRecord::Somewhere));
        records.end(&begun, Some(first));
        assert!(matches!(records.last(), LastRecord::Somewhere));
        let asked = records.ask();
        records.answered(&asked);
        assert!(!is_done(stream) && matches!(records.last(), LastRecord::Reached));
        let begun = records.begin();
        records.end(&begun, Some(third));
        assert!(matches!(records.last(), LastRecord::At { .. }));
    }
}
