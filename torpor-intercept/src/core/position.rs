//! How far a stream has come: what was posted to it, and what of that is known to be done.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many commands a stream had at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    commands: u64,
    /// Those of them that are no uploads.
    posted: u64,
}

impl Position {
    /// What is done when a command is that was posted by a thread which found this position before it and `after` behind
    /// it. Other threads' commands that were counted meanwhile may come after it in the ring.
    pub(super) fn done_with_one(self, after: Self) -> Self {
        if after.commands == self.commands + 1 { after } else { self }
    }
}

/// The commands of one stream. Counted after they were posted.
pub(super) struct Counts {
    posted: AtomicU64,
    /// Uploads of pageable memory, which are not among those.
    uploaded: AtomicU64,
    /// How many of both are known to be done.
    done: AtomicU64,
    /// How many of `posted` are known to be done.
    done_posted: AtomicU64,
}

impl Counts {
    /// A stream is not known to be done before it was synchronised.
    pub(super) const fn new() -> Self {
        Self {
            posted: AtomicU64::new(1),
            uploaded: AtomicU64::new(0),
            done: AtomicU64::new(0),
            done_posted: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(super) fn count(&self) {
        self.posted.fetch_add(1, Ordering::Release);
    }

    pub(super) fn count_upload(&self) {
        self.uploaded.fetch_add(1, Ordering::Release);
    }

    pub(super) fn position(&self) -> Position {
        let posted = self.posted.load(Ordering::Acquire);
        Position { commands: posted + self.uploaded.load(Ordering::Acquire), posted }
    }

    /// Whether everything up to a position is known to be done.
    pub(super) fn are_done_up_to(&self, position: Position) -> bool {
        self.done.load(Ordering::Relaxed) >= position.commands
    }

    /// Whether everything up to a position is known to be done, or is an upload.
    pub(super) fn are_done_but_for_uploads(&self, position: Position) -> bool {
        self.done_posted.load(Ordering::Relaxed) >= position.posted
    }

    /// Notes that everything up to a position is done.
    pub(super) fn mark_done_up_to(&self, position: Position) {
        self.done.fetch_max(position.commands, Ordering::Relaxed);
        self.done_posted.fetch_max(position.posted, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_alone_are_told_from_anything_else() {
        let counts = Counts::new();
        let before = counts.position();
        counts.count_upload();
        assert!(!counts.are_done_but_for_uploads(counts.position()), "nothing was synchronised");
        counts.mark_done_up_to(before);
        assert!(counts.are_done_but_for_uploads(counts.position()));
        assert!(!counts.are_done_up_to(counts.position()));

        counts.count();
        let launched = counts.position();
        counts.count_upload();
        counts.mark_done_up_to(before);
        assert!(!counts.are_done_but_for_uploads(counts.position()), "there is a launch among them");
        counts.mark_done_up_to(launched);
        assert!(counts.are_done_but_for_uploads(counts.position()) && counts.are_done_up_to(launched));
        assert!(!counts.are_done_up_to(counts.position()));
    }

    #[test]
    fn what_others_posted_beside_a_command_is_not_done_with_it() {
        let counts = Counts::new();
        let before = counts.position();
        counts.count();
        let alone = counts.position();
        assert_eq!(before.done_with_one(alone), alone);
        counts.count_upload();
        assert_eq!(before.done_with_one(counts.position()), before);
    }
}
