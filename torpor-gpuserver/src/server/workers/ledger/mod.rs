//! The ledger of a GPU's memory: its executors, each a process, share it by allowances that the server gives.
//!
//! While the functions that share the GPU are alone there, their worker may have all of it and asks nobody.

mod book;

use crate::server::workers::ledger::book::{Book, Holder, Said, Word, Yielded};
use crate::server::workers::order::{Attachment, Outgoing};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot};
use torpor_proto::control::worker::{
    AllowMemory, GrantMemory, MemoryWanted, MemoryYielded, RefuseMemory, ToWorker, YieldMemory, to_worker,
};

/// The ledger of one GPU.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    book: Book,
    ends: BTreeMap<Holder, End>,
}

/// Where an executor hears.
#[derive(Debug)]
enum End {
    /// It waits for room for its context.
    Waiting(oneshot::Sender<bool>),
    /// It has that, and no worker yet.
    Seated,
    Worker(mpsc::UnboundedSender<Outgoing>),
}

/// What an executor has of the GPU's memory: given back on drop, when its process is gone.
#[derive(Debug)]
pub(crate) struct Seat {
    ledger: Arc<Ledger>,
    holder: Holder,
    /// Its worker speaks to this server, and not to the one before any more.
    is_heard: bool,
}

impl Ledger {
    /// The worker of those that share the GPU is there; executors together may have so much. One that resumes is told what it may have,
    /// whatever the server before allowed it.
    pub(super) fn host(
        self: &Arc<Self>,
        limit_bytes: u64,
        outbox: mpsc::UnboundedSender<Outgoing>,
        resumes: bool,
    ) -> Seat {
        let mut state = self.state();
        let (holder, said) = state.book.host(limit_bytes);
        state.ends.insert(holder, End::Worker(outbox));
        // A new one begins with all that there is.
        let is_news = |&(_, word): &(Holder, Word)| resumes || word != Word::Allow(limit_bytes);
        state.say(said.into_iter().filter(is_news).collect());
        Seat { ledger: self.clone(), holder, is_heard: !resumes }
    }

    /// An enclosure is to begin, whose context takes so much; `None` if there is no room for it.
    pub(super) async fn enclose(self: &Arc<Self>, context_bytes: u64) -> Option<Seat> {
        let (done, seated) = oneshot::channel();
        let seat = {
            let mut state = self.state();
            let (holder, said) = state.book.enclose(context_bytes);
            state.ends.insert(holder, End::Waiting(done));
            state.say(said);
            Seat { ledger: self.clone(), holder, is_heard: true }
        };
        seated.await.is_ok_and(|has_room| has_room).then_some(seat)
    }

    /// What executors may have together; 0 before the GPU ever served.
    pub(super) fn limit_bytes(&self) -> u64 {
        self.state().book.limit_bytes()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Its worker is there.
    pub(super) fn connect(&self, outbox: mpsc::UnboundedSender<Outgoing>) {
        self.ledger.state().ends.insert(self.holder, End::Worker(outbox));
    }

    /// What its worker says from now on, it says to this server.
    pub(super) fn resumed(&mut self) {
        self.is_heard = true;
    }

    /// Its worker is short of memory.
    pub(super) fn want(&self, MemoryWanted { bytes, idle_us }: MemoryWanted) {
        if !self.is_heard {
            return;
        }
        let mut state = self.ledger.state();
        let said = state.book.want(self.holder, bytes, idle_us);
        state.say(said);
    }

    /// Its worker has given memory up, or cannot.
    pub(super) fn yielded(&self, MemoryYielded { demand, bytes, leaving, later }: MemoryYielded) {
        if !self.is_heard {
            return;
        }
        let mut state = self.ledger.state();
        let said = state.book.yielded(self.holder, Yielded { demand, bytes, leaving, later });
        state.say(said);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.ledger.state();
        state.ends.remove(&self.holder);
        let said = state.book.leave(self.holder);
        state.say(said);
    }
}

impl State {
    fn say(&mut self, said: Said) {
        for (holder, word) in said {
            let body = match word {
                Word::Allow(bytes) => to_worker::Body::AllowMemory(AllowMemory { bytes }),
                Word::Grant(bytes) => to_worker::Body::GrantMemory(GrantMemory { bytes }),
                Word::Yield { demand, bytes, idle_us } => {
                    to_worker::Body::YieldMemory(YieldMemory { demand, bytes, idle_us })
                }
                Word::Refuse => to_worker::Body::RefuseMemory(RefuseMemory {}),
                Word::Seat | Word::NoSeat => {
                    if let Some(End::Waiting(done)) = self.ends.insert(holder, End::Seated) {
                        // Who waited may have been told to end.
                        let _ = done.send(word == Word::Seat);
                    }
                    continue;
                }
            };
            if let Some(End::Worker(outbox)) = self.ends.get(&holder) {
                let message = ToWorker { body: Some(body) };
                // Its supervisor ends the conversation when the worker is gone.
                let _ = outbox.send(Outgoing { message, attachment: Attachment::Nothing });
            }
        }
    }
}
