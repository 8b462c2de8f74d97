//! What a session does about work on the GPU that is not done: it never blocks, but looks between commands, or until it is.

use crate::state_file::Void;
use crate::worker::gpu::fence::Fence;
use crate::worker::objects::pending::{Kept, Pending};
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::session::pause::WATCH_NAP;
use std::time::Instant;

impl Session {
    /// Whether anything waits for the GPU.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
            || self.streams.has_retiring()
            || !self.arrivals.is_empty()
            || self.is_swapping_in()
            || self.residency.is_ahead
    }

    /// Does what is due. An error is the context's.
    #[inline]
    pub(crate) fn poll(&mut self) -> Result<(), Halt> {
        if !self.is_waiting() {
            return Ok(());
        }
        let channel = self.link.channel.get().expect("set when the session was opened");
        let check = self.pending.poll(&self.streams.fences, channel);
        if self.pending.has_answers() {
            self.read_text_if_due()?;
            if self.pending.has_errors() {
                self.uncover(Void::Error);
            }
            let channel = self.link.channel.get().expect("set when the session was opened");
            let (cover, link) = (&self.cover, &self.link);
            self.pending.give_answers(channel, |slot, answer| cover.answer(link, channel, slot, answer));
        }
        if self.pending.take_done_again() {
            self.tell_attached();
        }
        if check {
            self.check()?;
        }
        if self.streams.has_retiring() {
            self.streams.bury();
        }
        self.arrivals.poll()?;
        self.note_caught_up()
    }

    /// Keeps something until all work that was posted so far is done. Errors as [`Self::drain`].
    pub(crate) fn keep(&mut self, kept: Kept) -> Result<(), Halt> {
        let fences = self.streams.fence_all()?;
        self.pending.push(Pending::Keep(kept, fences));
        self.make_room()
    }

    /// Waits if too much waits for the GPU already. Errors as [`Self::drain`].
    pub(crate) fn make_room(&mut self) -> Result<(), Halt> {
        while self.pending.is_full() {
            self.drain()?;
            self.poll()?;
        }
        Ok(())
    }

    /// Waits if the GPU is too far behind what was posted. Errors as [`Self::drain`].
    #[inline]
    pub(crate) fn catch_up(&mut self) -> Result<(), Halt> {
        match self.streams.congestion()? {
            None => Ok(()),
            Some(fence) => self.wait_for(vec![fence]),
        }
    }

    /// Waits until all work of the client is done, while answers keep going out.
    ///
    /// # Errors
    /// [`Halt::Lost`], or [`Halt::Interrupted`].
    pub(crate) fn drain(&mut self) -> Result<(), Halt> {
        let fences = self.streams.fence_all()?;
        self.wait_for(fences)
    }

    /// Waits for fences, while answers keep going out. Errors as [`Self::drain`].
    pub(crate) fn wait_for(&mut self, mut fences: Vec<Fence>) -> Result<(), Halt> {
        let since = Instant::now();
        while !self.streams.fences.all_reached(&mut fences) {
            self.wait_a_moment(since)?;
        }
        Ok(())
    }

    /// What whoever waits for the GPU since then does between two looks. Errors as [`Self::drain`].
    pub(crate) fn wait_a_moment(&mut self, since: Instant) -> Result<(), Halt> {
        if self.is_interrupted() {
            return Err(Halt::Interrupted);
        }
        self.poll()?;
        if since.elapsed() < self.shared.tuning.spin {
            std::hint::spin_loop();
        } else {
            // Nobody but who waits notices a context that is lost meanwhile.
            self.check()?;
            std::thread::sleep(WATCH_NAP);
        }
        Ok(())
    }
}
