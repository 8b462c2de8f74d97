//! How far a stream has come: what was posted to it, and what of that is known to be done.
//!
//! Counts go on when a stream gets the number of one that was destroyed, so a position is one moment of one stream for ever.
//! The new stream does not wait for the old one's work: that it is done says nothing of what was left of the other.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many commands a stream, and those that had its number before, had at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::core) struct Position {
    commands: u64,
    /// Those of them that are no uploads.
    posted: u64,
}

impl Position {
    /// What is done when a command is that was posted by a thread which found this position before it and `after` behind
    /// it. Other threads' commands that were counted meanwhile may come after it in the ring.
    pub(in crate::core) fn done_with_one(self, after: Self) -> Self {
        if after.commands == self.commands + 1 { after } else { self }
    }
}

/// The commands of one stream. Counted after they were posted.
pub(super) struct Progress {
    posted: AtomicU64,
    /// Uploads of pageable memory, which are not among those.
    uploaded: AtomicU64,
    /// How many of both are known to be done.
    done: AtomicU64,
    /// How many of `posted` are known to be done.
    done_posted: AtomicU64,
    left: Left,
}

/// Commands of destroyed streams that were not known to be done: those from the first such to the last, so some that were
/// known are among them.
struct Left {
    /// So many commands come before them.
    before: AtomicU64,
    /// Up to here; 0 if there are none.
    up_to: AtomicU64,
}

impl Progress {
    /// A stream is not known to be done before it was synchronised.
    pub(super) const fn new() -> Self {
        Self {
            posted: AtomicU64::new(1),
            uploaded: AtomicU64::new(0),
            done: AtomicU64::new(0),
            done_posted: AtomicU64::new(0),
            left: Left { before: AtomicU64::new(0), up_to: AtomicU64::new(0) },
        }
    }

    /// For a new stream in the place of a destroyed one, before anybody has it.
    pub(super) fn renew(&self) {
        let end = self.position();
        let done = self.done.load(Ordering::Relaxed);
        if done < end.commands {
            if self.left.up_to.load(Ordering::Relaxed) == 0 {
                self.left.before.store(done, Ordering::Relaxed);
            }
            // SYNC POINT left: who sees it sees what comes before.
            self.left.up_to.store(end.commands, Ordering::Release);
        }
        self.count();
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
        // SYNC POINT done: who sees what the new stream has done sees what the old one left.
        self.done.load(Ordering::Acquire) >= position.commands && !self.left.contains(position)
    }

    /// Whether everything up to a position of the present stream is known to be done, or is an upload.
    pub(super) fn are_done_but_for_uploads(&self, position: Position) -> bool {
        self.done_posted.load(Ordering::Acquire) >= position.posted
    }

    /// Notes that everything up to a position is done.
    pub(super) fn mark_done_up_to(&self, position: Position) {
        // SYNC POINT done: and what was taken from edges (core/registered) before it was known.
        self.done.fetch_max(position.commands, Ordering::Release);
        self.done_posted.fetch_max(position.posted, Ordering::Release);
    }
}

impl Left {
    fn contains(&self, position: Position) -> bool {
        // SYNC POINT left
        let up_to = self.up_to.load(Ordering::Acquire);
        position.commands <= up_to && position.commands > self.before.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_alone_are_told_from_anything_else() {
        let progress = Progress::new();
        let before = progress.position();
        progress.count_upload();
        assert!(!progress.are_done_but_for_uploads(progress.position()), "nothing was synchronised");
        progress.mark_done_up_to(before);
        assert!(progress.are_done_but_for_uploads(progress.position()));
        assert!(!progress.are_done_up_to(progress.position()));

        progress.count();
        let launched = progress.position();
        progress.count_upload();
        progress.mark_done_up_to(before);
        assert!(!progress.are_done_but_for_uploads(progress.position()), "there is a launch among them");
        progress.mark_done_up_to(launched);
        assert!(progress.are_done_but_for_uploads(progress.position()) && progress.are_done_up_to(launched));
        assert!(!progress.are_done_up_to(progress.position()));
    }

    #[test]
    fn what_others_posted_beside_a_command_is_not_done_with_it() {
        let progress = Progress::new();
        let before = progress.position();
        progress.count();
        let alone = progress.position();
        assert_eq!(before.done_with_one(alone), alone);
        progress.count_upload();
        assert_eq!(before.done_with_one(progress.position()), before);
    }

    #[test]
    fn what_a_destroyed_stream_left_is_not_done_with_its_successor() {
        let progress = Progress::new();
        let known = progress.position();
        progress.mark_done_up_to(known);
        progress.count();
        let left = progress.position();
        for _ in 0..3 {
            progress.renew();
            assert!(!progress.are_done_but_for_uploads(progress.position()), "nothing was synchronised");
            progress.count();
            progress.mark_done_up_to(progress.position());
            assert!(progress.are_done_up_to(progress.position()));
            assert!(progress.are_done_up_to(known) && !progress.are_done_up_to(left));
        }
        progress.mark_done_up_to(left);
        assert!(!progress.are_done_up_to(left), "a late mark says it, but nothing of what came after it");
    }

    #[test]
    fn what_was_known_to_be_done_stays_so() {
        let progress = Progress::new();
        progress.count();
        let done = progress.position();
        progress.mark_done_up_to(done);
        progress.renew();
        assert!(progress.are_done_up_to(done) && !progress.are_done_up_to(progress.position()));
    }
}
