//! Covering: the memory of an idle client is saved, if it is on the GPU, and the server is given the client's state, without the
//! client's end here. If this worker dies while the state holds, the next one goes on from it, and the client does not notice.
//!
//! A client that does something again is no longer covered, but its state holds on: whatever commands it posts from then on are done
//! again by the next worker (`replay`). What cannot be done again makes the state void first, and so does whatever else changes which
//! chunks of the host store the client refers to.

use crate::state_file::{self, Pledge, Void};
use crate::worker::mailbox::Link;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use torpor_proto::channel::Channel;
use torpor_proto::completion::{SLOTS, Sleeper};
use torpor_proto::ring::Consumer;

/// How long a client has been idle before its state is written: a request may be about to come.
const IDLE: Duration = Duration::from_millis(20);

/// A longer state is not kept for the case that this worker dies.
const MOST_BYTES: u64 = 16 << 20;

/// Saving memory, and writing states, take at most this part of a session's time each.
const PART: u32 = 20;

/// Between two looks of a client that would be lost now.
const URGENT_NAP: Duration = Duration::from_millis(10);

/// The same of saving memory, for a client that would be lost now.
const URGENT_PART: u32 = 4;

/// How long the server's state may be behind the client: then its memory is saved beside the work of others, which until then keeps it from
/// that. The copies are the bus's, and cost them little.
const OVERDUE: Duration = Duration::from_millis(200);

/// What a session knows of the state that the server has.
#[derive(Debug)]
pub(crate) struct Cover {
    /// Of the last state: it stays mapped until the next one, since unmapping it would hold a request up.
    pledge: Option<Pledge>,
    /// Of each completion slot, where in the ring its last command ends.
    ends: Ends,
    /// It is what the client is.
    is_current: bool,
    /// Since when it is not, if it is not.
    behind_since: Instant,
    /// Not earlier is another one written.
    next: Option<Instant>,
    /// Not earlier is memory saved for one.
    next_save: Option<Instant>,
}

impl Default for Cover {
    fn default() -> Self {
        let (pledge, ends, behind_since) = (None, Ends::default(), Instant::now());
        Self { pledge, ends, is_current: false, behind_since, next: None, next_save: None }
    }
}

/// Where the last command of each completion slot ends.
#[derive(Debug)]
struct Ends([u64; SLOTS]);

impl Default for Ends {
    fn default() -> Self {
        Self([0; SLOTS])
    }
}

impl Cover {
    /// A command that ends there in the ring is answered in this slot, if that is one.
    #[inline]
    pub(crate) fn note_slot(&mut self, slot: u16, end: u64) {
        if let Some(last) = self.ends.0.get_mut(usize::from(slot)) {
            *last = end;
        }
    }

    /// Whether the client should not wait any longer for a moment in which nobody works.
    pub(crate) fn is_overdue(&self) -> bool {
        !self.is_current && self.behind_since.elapsed() >= OVERDUE
    }

    /// Answers the last command of a completion slot, by `answer`; the next worker knows that it was. Does not return if the worker has
    /// [let go](crate::worker::relinquish) of what it shares.
    pub(crate) fn answer<'a>(
        &self,
        link: &Link,
        channel: &Channel,
        slot: u16,
        answer: impl FnOnce() -> Sleeper<'a>,
    ) {
        let _both = link.answering();
        match (&self.pledge, self.ends.0.get(usize::from(slot))) {
            (Some(pledge), Some(&end)) => {
                let taken = Consumer::resume(channel.ring()).words_taken();
                pledge.answer(slot, (end, taken), answer);
            }
            _ => answer().wake(),
        }
    }
}

impl Session {
    /// Whether what the server has is what the client is.
    #[inline]
    pub(crate) fn is_covered(&self) -> bool {
        self.cover.is_current
    }

    /// Whether the client goes on at the next worker if this one ends.
    pub(crate) fn survives(&self) -> bool {
        let is_told = self.link.channel.get().is_some_and(|channel| channel.sticky_error().is_some());
        self.link.survives.load(Ordering::Relaxed) && !is_told
    }

    /// Whether the client would be lost now and need not be: that is mended as soon as it is idle, and nobody's turn is in its way.
    pub(crate) fn is_in_danger(&self) -> bool {
        !self.link.survives.load(Ordering::Relaxed) && self.can_be_covered()
    }

    /// How long it keeps its turn, which may last so long otherwise: it is saved without it.
    pub(crate) fn linger_until_saved(&self, linger: Duration) -> Duration {
        if self.is_in_danger() { linger.min(IDLE) } else { linger }
    }

    /// The client is about to do something that can be done again. By one load and a branch, if it is not covered.
    #[inline]
    pub(crate) fn outgrow_cover(&mut self) {
        if self.is_covered() {
            if let Some(pledge) = &self.cover.pledge {
                pledge.outgrow();
            }
            self.cover.is_current = false;
            self.cover.behind_since = Instant::now();
            self.link.usage.covered.store(false, Ordering::Relaxed);
            if !self.shared.tuning.cover {
                // Nobody wants it to survive more than its move.
                self.uncover(Void::Unwanted);
            }
        }
    }

    /// The client is about to become what its state does not lead to, and why.
    pub(crate) fn uncover(&mut self, why: Void) {
        self.outgrow_cover();
        if self.link.survives.load(Ordering::Relaxed) {
            if let Some(pledge) = &self.cover.pledge {
                pledge.make_void(why);
            }
            tracing::debug!(
                client = self.link.client,
                "would not survive this worker now: {}",
                why.because()
            );
            self.link.survives.store(false, Ordering::Relaxed);
            // Until it is saved and has another state it would be lost.
            (self.cover.next, self.cover.next_save) = (None, None);
            self.give_up_superseded();
        }
    }

    /// Gives the server the client's state if it is time for that. The client is idle and has no turn.
    ///
    /// # Errors
    /// The context's, [`Halt::Interrupted`].
    pub(crate) fn cover(&mut self, idle: Duration) -> Result<(), Halt> {
        if idle < IDLE || !self.can_be_covered() || !self.is_saved()? {
            return Ok(());
        }
        let now = Instant::now();
        if self.cover.next.is_some_and(|next| now < next) {
            return Ok(());
        }
        let written = match self.take_checkpoint()? {
            Some(state) => state_file::write(&state),
            None => return Ok(()),
        };
        let covered = written.and_then(|file| {
            let bytes = state_file::bytes(&file);
            if bytes > MOST_BYTES {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            self.keep_cover(Pledge::of(&file)?);
            // Else it goes on calling chunks as the state does that it came as.
            let by_numbers = !self.residency.came_as_state;
            self.shared.server.tell_covered(self.link.client, &file, by_numbers);
            self.give_up_superseded();
            Ok(())
        });
        if let Err(error) = covered
            && let Some(untold) = self.residency.unsaved.tell(now)
        {
            let (client, function) = (self.link.client, &self.link.function);
            tracing::warn!(
                client,
                function,
                untold,
                "it would not survive this worker: its state cannot be kept: {error}"
            );
        }
        self.cover.next = Some(Instant::now() + now.elapsed() * PART);
        Ok(())
    }

    /// The same of a client that has just come and has nothing: from then on it is what it does, which may be done again.
    ///
    /// # Errors
    /// As [`Self::cover`].
    pub(crate) fn cover_newcomer(&mut self) -> Result<(), Halt> {
        self.cover(IDLE)
    }

    /// Whether all of its memory is in the host store, where it is brought if it is time for that.
    fn is_saved(&mut self) -> Result<bool, Halt> {
        let is_saved = self.space.resident_bytes() == 0 || !self.residency.has_changed;
        if is_saved && !self.arrays.have_changed {
            return Ok(true);
        }
        let began = Instant::now();
        if self.cover.next_save.is_some_and(|next| began < next) || self.is_disturbed() {
            return Ok(false);
        }
        let saved = self.save_ahead();
        // Who was disturbed by its own next command tries again behind it.
        let is_urgent = self.is_in_danger();
        let part = if is_urgent { URGENT_PART } else { PART };
        let tries_again = is_urgent && self.is_disturbed();
        self.cover.next_save = (!tries_again).then(|| Instant::now() + began.elapsed() * part);
        saved
    }

    /// From now on the client is covered by this state, which the server has or is about to have.
    pub(super) fn keep_cover(&mut self, pledge: Pledge) {
        self.cover.pledge = Some(pledge);
        self.cover.is_current = true;
        self.link.survives.store(true, Ordering::Relaxed);
    }

    /// Tells people whether the client is covered.
    pub(crate) fn tell_cover(&self) {
        self.link.usage.covered.store(self.is_covered(), Ordering::Relaxed);
    }

    /// How long an idle session may sleep that is to be covered soon.
    pub(crate) fn nap_until_covered(&self, idle: Duration, nap: Duration) -> Duration {
        match idle.checked_sub(IDLE) {
            None if self.can_be_covered() => nap.min(IDLE - idle),
            Some(_) if self.is_in_danger() => nap.min(self.until_next_try().max(URGENT_NAP)),
            _ => nap,
        }
    }

    fn until_next_try(&self) -> Duration {
        let next = self.cover.next.max(self.cover.next_save);
        next.map_or(Duration::ZERO, |next| next.saturating_duration_since(Instant::now()))
    }

    /// Whether it is not covered and will be, once it is saved.
    pub(crate) fn can_be_covered(&self) -> bool {
        self.shared.tuning.cover
            && !self.is_covered()
            // Others change what it has, and would not make its state void.
            && !self.residency.shares
            && self.images.fixed() == 0
            && !self.keeps_arrays()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::relinquish::relinquish;
    use rustix::io::{FdFlags, fcntl_setfd};
    use std::os::fd::{AsRawFd, BorrowedFd};
    use std::process::{Command, Stdio};
    use torpor_proto::channel::MappedChannel;
    use torpor_proto::control::migration::Checkpoint;
    use torpor_proto::layout::AddressRange;

    /// The variable that has the numbers of the descriptors.
    const FILES: &str = "TORPOR_ANSWERS";

    #[test]
    fn who_is_answered_while_the_worker_lets_go_has_the_answer_and_nobody_is_afterwards() {
        let (channel, channel_file) = MappedChannel::create().unwrap();
        let state = state_file::write(&Checkpoint::default()).unwrap();
        for file in [&channel_file, &state] {
            fcntl_setfd(file, FdFlags::empty()).unwrap();
        }
        let ended = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "worker::session::checkpoint::cover::tests::the_one_that_answers",
                "--nocapture",
            ])
            .env(FILES, format!("{} {}", channel_file.as_raw_fd(), state.as_raw_fd()))
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(ended.success());
        let answers = Pledge::of(&state).unwrap().answers();
        assert_eq!((channel.slots[0].is_done(), answers.given(0, 10)), (true, Some(true)));
        assert_eq!((channel.slots[1].is_done(), answers.given(1, 20)), (false, Some(false)));
    }

    /// The process of the test above.
    #[test]
    fn the_one_that_answers() {
        let Some(files) = std::env::var_os(FILES) else { return };
        let files = files.into_string().unwrap();
        // SAFETY: inherited, and open as long as the process is.
        let mut files =
            files.split(' ').map(|number| unsafe { BorrowedFd::borrow_raw(number.parse().unwrap()) });
        let channel = MappedChannel::open(files.next().unwrap()).unwrap();
        let mut cover =
            Cover { pledge: Some(Pledge::of(files.next().unwrap()).unwrap()), ..Cover::default() };
        cover.note_slot(0, 10);
        cover.note_slot(1, 20);
        let link = Link::new(1, "f", AddressRange { address: 0, bytes: 0 });
        std::thread::scope(|scope| {
            cover.answer(&link, &channel, 0, || {
                scope.spawn(|| {
                    link.stop_answering();
                    relinquish().unwrap();
                    scope.spawn(|| {
                        cover.answer(&link, &channel, 1, || channel.slots[1].publish(Ok(()), &[], &[]))
                    });
                    // Long enough for an answer that nothing keeps back.
                    std::thread::sleep(IDLE);
                    // SAFETY: ends the process.
                    unsafe { libc::_exit(0) }
                });
                // Long enough to let go, if nothing kept that back.
                std::thread::sleep(5 * IDLE);
                channel.slots[0].publish(Ok(()), &[], &[])
            });
        });
    }
}
