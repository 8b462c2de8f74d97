//! What waits for the GPU: answers, staging marks, and things that must outlive their work.
//!
//! Looking at fences costs a read of memory each, so it is done between commands; the driver is asked more seldom.

use crate::driver::ExecutableGraph;
use crate::worker::event::ClientEvent;
use crate::worker::fence::{Fence, Fences};
use crate::worker::image_store::Instance;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use torpor_proto::channel::Channel;
use torpor_proto::command::Ticket;
use torpor_proto::error::CudaError;

/// Between two looks at events.
const EVENT_PERIOD: Duration = Duration::from_micros(4);

/// Between two questions to the driver whether the context is still well.
const CHECK_PERIOD: Duration = Duration::from_micros(200);

/// What waits.
#[derive(Debug)]
pub(super) enum Pending {
    /// An answer, due when the fences are reached.
    Answer(Ticket, Vec<Fence>),
    /// An answer, due when the event's last record is reached.
    Event(Ticket, Rc<ClientEvent>),
    /// Something that the GPU still uses until the fences are reached.
    Keep(#[expect(dead_code, reason = "kept for its drop alone")] Kept, Vec<Fence>),
}

/// What is kept until the GPU has done with it.
#[derive(Debug)]
#[expect(dead_code, reason = "kept for its drop alone")]
pub(super) enum Kept {
    /// A graph that the client destroyed.
    Graph(Option<ExecutableGraph>),
    /// A client's own copy of an image that it unloaded.
    Image(Arc<Instance>),
}

/// All that waits in a session.
#[derive(Debug)]
pub(super) struct PendingWork {
    list: Vec<Pending>,
    /// In the order of their sequence numbers: one is released only when those before it are.
    marks: VecDeque<(u64, Vec<Fence>)>,
    events_looked_at: Instant,
    checked: Instant,
}

impl PendingWork {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { list: Vec::new(), marks: VecDeque::new(), events_looked_at: now, checked: now }
    }

    /// Whether nothing waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty() && self.marks.is_empty()
    }

    /// Adds something.
    pub(super) fn push(&mut self, pending: Pending) {
        self.list.push(pending);
    }

    /// Adds a staging mark.
    pub(super) fn push_mark(&mut self, sequence: u64, fences: Vec<Fence>) {
        self.marks.push_back((sequence, fences));
    }

    /// Does what is due. True if it is time to ask the driver how the context is.
    pub(super) fn poll(&mut self, fences: &Fences, channel: &Channel) -> bool {
        while let Some((sequence, waiting)) = self.marks.front_mut() {
            if !fences.all_reached(waiting) {
                break;
            }
            channel.release_staging(*sequence);
            self.marks.pop_front();
        }
        let now = Instant::now();
        let look_at_events = now.duration_since(self.events_looked_at) >= EVENT_PERIOD;
        if look_at_events {
            self.events_looked_at = now;
        }
        self.list.retain_mut(|pending| match pending {
            Pending::Answer(ticket, waiting) => {
                let done = fences.all_reached(waiting);
                if done {
                    answer(channel, *ticket, Ok(()));
                }
                !done
            }
            Pending::Event(ticket, event) => {
                if !look_at_events {
                    return true;
                }
                match event.real.query() {
                    Err(CudaError::NOT_READY) => true,
                    result => {
                        answer(channel, *ticket, result);
                        false
                    }
                }
            }
            Pending::Keep(_, waiting) => !fences.all_reached(waiting),
        });
        let check = now.duration_since(self.checked) >= CHECK_PERIOD;
        if check {
            self.checked = now;
        }
        check
    }

    /// Forgets everything: the GPU will never be there.
    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.marks.clear();
    }
}

/// Answers a command without words. [`torpor_proto::command::dispatch`] has checked that the slot exists.
fn answer(channel: &Channel, ticket: Ticket, status: Result<(), CudaError>) {
    if let Some(slot) = channel.slots.get(usize::from(ticket.0)) {
        slot.complete(status, &[], &[]);
    }
}
