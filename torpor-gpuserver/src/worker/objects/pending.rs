//! What waits for the GPU: answers, staging marks, and things that must outlive their work.
//!
//! Looking at fences costs a read of memory each, so it is done between commands; the driver is asked more seldom.

use crate::driver::{Event, ExecutableGraph};
use crate::worker::gpu::fence::{Fence, Fences};
use crate::worker::gpu::images::Instance;
use crate::worker::mailbox::Link;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use torpor_proto::channel::Channel;
use torpor_proto::command::Ticket;
use torpor_proto::completion::{SLOTS, Sleeper};
use torpor_proto::error::CudaError;

/// Between two looks at events.
const EVENT_PERIOD: Duration = Duration::from_micros(4);

/// Between two questions to the driver whether the context is still well.
const CHECK_PERIOD: Duration = Duration::from_micros(200);

/// What waits.
#[derive(Debug)]
pub(crate) enum Pending {
    /// An answer, due when the fences are reached.
    Answer(Ticket, Vec<Fence>),
    /// An answer, due when this record of an event is reached.
    Event(Ticket, Arc<Event>),
    /// Kernels that ran while memory was on its way have ended, when the fences are reached.
    CaughtUp(Arc<Link>, Vec<Fence>),
    /// All that the client had done before its last worker died is done again, when the fences are reached.
    DoneAgain(Vec<Fence>),
    /// A segment is looked at, which the session goes on with when the fences are reached.
    Looked(Vec<Fence>),
    /// Something that the GPU still uses until the fences are reached.
    Keep(#[expect(dead_code, reason = "kept for its drop alone")] Kept, Vec<Fence>),
}

/// What is kept until the GPU has done with it.
#[derive(Debug)]
#[expect(dead_code, reason = "kept for its drop alone")]
pub(crate) enum Kept {
    /// A graph that the client destroyed.
    Graph(Option<ExecutableGraph>),
    /// A client's own copy of an image that it unloaded.
    Image(Arc<Instance>),
    /// What is copied to the GPU.
    Bytes(Vec<u8>),
}

/// Things that are kept, and staging marks that wait, at most: a client that makes more waits for the GPU first.
const LIMIT: usize = 256;

/// All that waits in a session.
#[derive(Debug)]
pub(crate) struct PendingWork {
    list: Vec<Pending>,
    /// One bit for each completion slot with an answer that is due, so there are never more of these than slots.
    due: u64,
    /// Whose answer is not given: the client has it.
    hushed: u64,
    /// [`Pending::DoneAgain`] is over.
    is_done_again: bool,
    /// How many are [`Pending::Keep`].
    kept: usize,
    /// In the order of their sequence numbers: one is released only when those before it are.
    marks: VecDeque<(u64, Vec<Fence>)>,
    events_looked_at: Instant,
    checked: Instant,
    /// Answers that can be given.
    answers: Vec<(Ticket, Result<(), CudaError>)>,
}

impl PendingWork {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            list: Vec::new(),
            due: 0,
            hushed: 0,
            is_done_again: false,
            kept: 0,
            marks: VecDeque::new(),
            events_looked_at: now,
            checked: now,
            answers: Vec::new(),
        }
    }

    /// Whether nothing waits.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty() && self.marks.is_empty() && self.answers.is_empty()
    }

    /// Adds something.
    pub(crate) fn push(&mut self, pending: Pending) {
        match &pending {
            Pending::Answer(ticket, _) | Pending::Event(ticket, _) => self.due |= bit(ticket.0),
            Pending::Keep(..) => self.kept += 1,
            Pending::CaughtUp(..) | Pending::DoneAgain(_) | Pending::Looked(_) => {}
        }
        self.list.push(pending);
    }

    /// Adds a staging mark.
    pub(crate) fn push_mark(&mut self, sequence: u64, fences: Vec<Fence>) {
        match self.marks.back_mut() {
            // It is released with the one before.
            Some(last) if fences.is_empty() => last.0 = sequence,
            _ => self.marks.push_back((sequence, fences)),
        }
    }

    /// Whether an answer is due in a completion slot.
    #[inline]
    pub(crate) fn is_due(&self, slot: u16) -> bool {
        self.due & bit(slot) != 0
    }

    /// The client has the next answer in this completion slot, and no other one comes meanwhile.
    pub(crate) fn hush(&mut self, slot: u16) {
        self.hushed = bit(slot);
    }

    /// The client is given all answers.
    pub(crate) fn hush_nobody(&mut self) {
        self.hushed = 0;
    }

    /// Whether no more may be kept or marked before the GPU has come on.
    pub(crate) fn is_full(&self) -> bool {
        self.kept >= LIMIT || self.marks.len() >= LIMIT
    }

    /// Does what is due, but for answers. True if it is time to ask the driver how the context is.
    pub(crate) fn poll(&mut self, fences: &Fences, channel: &Channel) -> bool {
        while let Some((sequence, waiting)) = self.marks.front_mut() {
            if !fences.all_reached(waiting) {
                break;
            }
            channel.staging().release(*sequence);
            self.marks.pop_front();
        }
        let now = Instant::now();
        let look_at_events = now.duration_since(self.events_looked_at) >= EVENT_PERIOD;
        if look_at_events {
            self.events_looked_at = now;
        }
        let mut lost = false;
        self.list.retain_mut(|pending| match pending {
            Pending::Answer(ticket, waiting) => {
                let done = fences.all_reached(waiting);
                if done {
                    self.answers.push((*ticket, Ok(())));
                }
                !done
            }
            Pending::Event(ticket, event) => {
                if !look_at_events {
                    return true;
                }
                match event.query() {
                    Err(CudaError::NOT_READY) => true,
                    // Whether the client is told is not said here.
                    Err(error) if error.is_sticky() => {
                        lost = true;
                        true
                    }
                    result => {
                        self.answers.push((*ticket, result));
                        false
                    }
                }
            }
            Pending::CaughtUp(link, waiting) => {
                let done = fences.all_reached(waiting);
                if done {
                    link.ran_ahead.store(0, Ordering::Relaxed);
                }
                !done
            }
            Pending::Looked(waiting) => !fences.all_reached(waiting),
            Pending::DoneAgain(waiting) => {
                let done = fences.all_reached(waiting);
                self.is_done_again |= done;
                !done
            }
            Pending::Keep(_, waiting) => {
                let done = fences.all_reached(waiting);
                self.kept -= usize::from(done);
                !done
            }
        });
        let check = lost || now.duration_since(self.checked) >= CHECK_PERIOD;
        if check {
            self.checked = now;
        }
        check
    }

    /// Whether answers can be given.
    #[inline]
    pub(crate) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Whether [`Pending::DoneAgain`] is over since this was asked last.
    pub(crate) fn take_done_again(&mut self) -> bool {
        std::mem::take(&mut self.is_done_again)
    }

    /// Whether an answer that can be given is an error.
    pub(crate) fn has_errors(&self) -> bool {
        self.answers.iter().any(|(_, status)| status.is_err())
    }

    /// Gives the answers that are due, each by `giving`, which knows its slot.
    pub(crate) fn give_answers<'a>(
        &mut self,
        channel: &'a Channel,
        giving: impl Fn(u16, &dyn Fn() -> Sleeper<'a>),
    ) {
        for (ticket, status) in self.answers.drain(..) {
            self.due &= !bit(ticket.0);
            if self.hushed & bit(ticket.0) == 0 {
                giving(ticket.0, &|| answer(channel, ticket, status));
            }
        }
    }

    /// Forgets everything: the GPU will never be there.
    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.answers.clear();
        (self.due, self.kept) = (0, 0);
        self.marks.clear();
    }
}

/// The bit of a completion slot; none of a number that is no slot's.
#[inline]
fn bit(slot: u16) -> u64 {
    const { assert!(SLOTS <= u64::BITS as usize) };
    1_u64.checked_shl(slot.into()).unwrap_or(0)
}

/// Answers a command without words. [`torpor_proto::command::dispatch`] has checked that the slot exists.
fn answer(channel: &Channel, ticket: Ticket, status: Result<(), CudaError>) -> Sleeper<'_> {
    let slot = channel.slots.get(usize::from(ticket.0));
    slot.map_or(Sleeper::NONE, |slot| slot.publish(status, &[], &[]))
}
