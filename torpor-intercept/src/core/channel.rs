//! Posting commands and awaiting answers.

use super::{Client, CudaResult, Remoting};
use bytemuck::Zeroable;
use std::marker::PhantomData;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use torpor_proto::command::{Command, Kind};
use torpor_proto::completion::{SLOTS, Slot, Waited};
use torpor_proto::error::CudaError;
use torpor_proto::ring::{NO_SLOT, Producer};

/// How often somebody who sleeps looks whether the server still lives.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Every completion slot free.
pub(super) const ALL_SLOTS: u64 = u64::MAX;

const _: () = assert!(SLOTS == 64, "free slots are the bits of a word");

/// A command that was posted and whose answer has not been taken.
#[must_use]
pub(super) struct Pending<C: Command> {
    client: &'static Client,
    slot: usize,
    command: PhantomData<C>,
}

/// An answer: its fixed part, and what came behind.
pub(super) struct Answer<R> {
    pub(super) reply: R,
    pub(super) tail: Vec<u8>,
}

impl Client {
    /// Posts a command. Its errors come back from a later call.
    #[inline]
    pub(super) fn post<C: Command<Reply = ()>>(&self, command: &C, tail: &[u8]) -> CudaResult<()> {
        const { assert!(matches!(C::KIND, Kind::Posted)) };
        self.check_usable()?;
        if self.remoting != Remoting::Full {
            return self.post_otherwise(command, tail);
        }
        self.push(C::OPCODE, NO_SLOT, command.words(), tail)
    }

    /// As [`Self::post`], for a command of which only its words are left.
    pub(super) fn post_words(&self, opcode: u16, words: &[u64], tail: &[u8]) -> CudaResult<()> {
        self.check_usable()?;
        if self.remoting != Remoting::Full {
            self.send_held()?;
        }
        self.push(opcode, NO_SLOT, words, tail)
    }

    /// As [`Self::post`], unless `is_barred` says so when nobody else can post any more: then false, and nothing was posted.
    #[inline]
    pub(super) fn post_unless<C: Command<Reply = ()>>(
        &self,
        is_barred: impl FnOnce() -> bool,
        command: &C,
        tail: &[u8],
    ) -> CudaResult<bool> {
        const { assert!(matches!(C::KIND, Kind::Posted)) };
        self.check_usable()?;
        if self.remoting != Remoting::Full {
            return if is_barred() { Ok(false) } else { self.post_otherwise(command, tail).map(|()| true) };
        }
        let producer = self.lock_producer();
        if is_barred() {
            return Ok(false);
        }
        self.push_locked(producer, C::OPCODE, NO_SLOT, command.words(), tail).map(|()| true)
    }

    /// Posts a command and returns at once; [`Pending::wait`] gives the answer.
    pub(super) fn start<C: Command>(&'static self, command: &C, tail: &[u8]) -> CudaResult<Pending<C>> {
        const { assert!(matches!(C::KIND, Kind::Awaited)) };
        self.check_usable()?;
        if self.remoting != Remoting::Full {
            self.send_held()?;
        }
        let slot = self.take_slot()?;
        let pending = Pending { client: self, slot, command: PhantomData };
        self.slot(slot).prepare();
        match self.push(C::OPCODE, slot as u16, command.words(), tail) {
            Ok(()) => Ok(pending),
            Err(error) => {
                // Nothing will be answered: the slot is free again as it is.
                self.give_slot_back(slot);
                std::mem::forget(pending);
                Err(error)
            }
        }
    }

    /// Posts a command and waits for its answer.
    pub(super) fn call<C: Command>(&'static self, command: &C, tail: &[u8]) -> CudaResult<Answer<C::Reply>> {
        self.start(command, tail)?.wait()
    }

    /// An error that is to be returned now: a sticky one, or the first of posted commands since the last look.
    ///
    /// For calls that put work into streams or wait for it: programs expect errors of earlier work from these. A loader
    /// of code that met one would take it for its own and never try again.
    #[inline]
    pub(super) fn check(&self) -> CudaResult<()> {
        self.check_usable()?;
        self.channel.take_deferred_error().map_or(Ok(()), Err)
    }

    /// An error if no call can succeed any more.
    ///
    /// # Errors
    /// That error.
    #[inline]
    pub fn check_usable(&self) -> CudaResult<()> {
        if let Some(error) = self.channel.sticky_error() {
            return Err(self.failed(error));
        }
        if self.is_lost.load(Ordering::Relaxed) {
            return Err(CudaError::DEVICE_UNAVAILABLE);
        }
        Ok(())
    }

    #[inline]
    pub(super) fn push(&self, opcode: u16, slot: u16, body: &[u64], tail: &[u8]) -> CudaResult<()> {
        self.push_locked(self.lock_producer(), opcode, slot, body, tail)
    }

    #[inline]
    fn lock_producer(&self) -> MutexGuard<'_, Producer> {
        self.producer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn push_locked(
        &self,
        mut producer: MutexGuard<'_, Producer>,
        opcode: u16,
        slot: u16,
        body: &[u64],
        tail: &[u8],
    ) -> CudaResult<()> {
        // Behind what host functions have written that are known to have returned.
        self.registered.edges.give();
        self.posted.fetch_add(1, Ordering::Relaxed);
        let (control, words) = (self.channel.ring(), &self.channel.words);
        if producer.push(control, words, opcode, slot, body, tail) {
            return Ok(());
        }
        loop {
            producer.wait_for_room(control, LOOK);
            if producer.push(control, words, opcode, slot, body, tail) {
                return Ok(());
            }
            self.check_alive()?;
        }
    }

    fn slot(&self, slot: usize) -> &Slot {
        &self.channel.slots[slot]
    }

    /// A free slot. With 64 threads waiting already, the 65th sleeps until one is done.
    fn take_slot(&self) -> CudaResult<usize> {
        loop {
            let free = self.free_slots.load(Ordering::Relaxed);
            if free == 0 {
                self.slot_line.wait_while(|| self.free_slots.load(Ordering::SeqCst) == 0);
                self.check_alive()?;
                continue;
            }
            let lowest = free.trailing_zeros() as usize;
            let rest = free & (free - 1);
            // Acquire and release: the slot's words were read by its last owner before this one prepares it.
            if self.free_slots.compare_exchange(free, rest, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Ok(lowest);
            }
        }
    }

    fn give_slot_back(&self, slot: usize) {
        // SYNC POINT line
        self.free_slots.fetch_or(1 << slot, Ordering::SeqCst);
        self.slot_line.next();
    }

    /// An error if the worker gave a sticky one or the lifeline has ended. Makes system calls.
    pub(super) fn check_alive(&self) -> CudaResult<()> {
        if let Some(error) = self.channel.sticky_error() {
            return Err(self.failed(error));
        }
        if let Some(ended) = self.lifeline.ended()
            && !self.is_lost.swap(true, Ordering::Relaxed)
        {
            crate::log::write(&ended.to_string());
        }
        if self.is_lost.load(Ordering::Relaxed) { Err(CudaError::DEVICE_UNAVAILABLE) } else { Ok(()) }
    }
}

impl<C: Command> Pending<C> {
    /// Waits for the answer: spins for a while, then sleeps.
    pub(super) fn wait(self) -> CudaResult<Answer<C::Reply>> {
        let slot = self.client.slot(self.slot);
        let begun = Instant::now();
        if !self.client.waiting.look(|| slot.is_done()) {
            while slot.sleep(LOOK) == Waited::TimedOut {
                if let Err(error) = self.client.check_alive() {
                    // The worker might still write to this slot: it is never used again.
                    std::mem::forget(self);
                    return Err(error);
                }
            }
        }
        crate::log::write_awaited(C::NAME, begun);
        let mut payload = Vec::new();
        let (status, bytes) = slot.take(&mut payload);
        let client = self.client;
        client.give_slot_back(self.slot);
        std::mem::forget(self);
        // An answer that fails with everything else is the first to tell of it.
        status.map_err(|error| if error.is_sticky() { client.failed(error) } else { error })?;
        client.registered.edges.take();
        let mut answer: Vec<u8> = bytemuck::cast_slice(&payload).to_vec();
        answer.truncate(bytes);
        let reply_bytes = size_of::<C::Reply>();
        if answer.len() < reply_bytes {
            return Err(CudaError::UNKNOWN);
        }
        let tail = answer.split_off(reply_bytes);
        let mut reply = C::Reply::zeroed();
        bytemuck::bytes_of_mut(&mut reply).copy_from_slice(&answer);
        Ok(Answer { reply, tail })
    }
}

impl<C: Command> Drop for Pending<C> {
    /// An answer that nobody takes still comes, and its slot must not be used before.
    fn drop(&mut self) {
        let slot = self.client.slot(self.slot);
        while !slot.is_done() && slot.sleep(LOOK) == Waited::TimedOut {
            if self.client.check_alive().is_err() {
                return;
            }
        }
        self.client.give_slot_back(self.slot);
    }
}
