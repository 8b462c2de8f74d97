//! Synchronisations that are owed: answered before the GPU has done what they wait for.
//!
//! PyTorch synchronises after every upload of pageable memory, a thousand times while a model moves to the GPU. The bytes were
//! read when the upload was posted, and what came of it the program can only see through later commands. Those of
//! the same stream come behind it anyway. So where a stream got uploads alone since it was known to be done, its
//! synchronisation is answered at once, and commands of other streams wait for those uploads on the GPU: the stream *owes* it.
//!
//! While nobody owes anything new, this costs a stream's post three loads.

use super::event::{DISABLE_TIMING, Event};
use super::position::Position;
use super::stream::Stream;
use super::{Client, CudaResult, Remoting, client};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use torpor_proto::command::{EventRecord, EventSynchronize, StreamWaitEvent};

/// So many streams may owe something. Every other stream waits for each of them: with more, synchronising is cheaper.
const MOST_DEBTS: usize = 4;

/// What the streams of this process owe.
#[derive(Default)]
pub(super) struct Owed {
    /// The number of the latest debt. Written with `debts` locked.
    latest: AtomicU64,
    debts: Mutex<Vec<Debt>>,
}

/// What one stream owes.
struct Debt {
    stream: &'static Stream,
    number: u64,
    /// What the stream had when it was asked to synchronise.
    position: Position,
    /// Recorded behind the uploads, when somebody has to wait for it or something else is to come behind them.
    event: &'static Event,
    is_recorded: bool,
}

/// A stream's part.
pub(super) struct StreamOwed {
    /// The latest debt that its commands come behind.
    behind: AtomicU64,
    /// Its own debt has no event yet: with anything but uploads behind it, others would wait for that, too.
    is_open: AtomicBool,
}

impl StreamOwed {
    pub(super) const fn new() -> Self {
        Self { behind: AtomicU64::new(0), is_open: AtomicBool::new(false) }
    }

    /// For a new stream in the place of an old one.
    pub(super) fn renew(&self) {
        self.behind.store(0, Ordering::Relaxed);
    }
}

impl Owed {
    fn lock(&self) -> MutexGuard<'_, Vec<Debt>> {
        self.debts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// Whether a synchronisation can be answered now, because this stream owes it from now on.
    pub(super) fn owe(&'static self, client: &Client, position: Position) -> CudaResult<bool> {
        if client.remoting != Remoting::Full || !self.is_done_but_for_uploads(position) {
            return Ok(false);
        }
        let mut debts = client.owed.lock();
        let number = client.owed.latest.load(Ordering::Relaxed) + 1;
        let own = debts.iter().position(|debt| debt.is_of(self));
        match own.or_else(|| debts.iter().position(Debt::is_over)) {
            Some(at) if debts[at].is_of(self) && debts[at].position >= position => return Ok(true),
            Some(at) => debts[at].renew(self, number, position),
            None if debts.len() < MOST_DEBTS => {
                let event = Event::create(DISABLE_TIMING)?;
                debts.push(Debt { stream: self, number, position, event, is_recorded: false });
            }
            None => return Ok(false),
        }
        self.owed.is_open.store(true, Ordering::Relaxed);
        if self.owed.behind.load(Ordering::Relaxed) == number - 1 {
            self.owed.behind.store(number, Ordering::Relaxed);
        }
        // SYNC POINT latest: who comes behind this debt finds it in the list.
        client.owed.latest.store(number, Ordering::Release);
        Ok(true)
    }

    /// Before a command that is no upload: puts what it has to come behind before it.
    #[inline]
    pub(super) fn come_behind_owed(&'static self, client: &Client) -> CudaResult<()> {
        if self.is_behind_all(client) && !self.owed.is_open.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.close_and_wait(client)
    }

    /// Before an upload, as [`Self::come_behind_owed`].
    pub(super) fn come_behind_owed_of_others(&'static self, client: &Client) -> CudaResult<()> {
        if self.is_behind_all(client) {
            return Ok(());
        }
        self.wait_for_others(client, &mut client.owed.lock())
    }

    #[inline]
    fn is_behind_all(&self, client: &Client) -> bool {
        // SYNC POINT latest, and SYNC POINT behind: the waits are in the ring.
        self.owed.behind.load(Ordering::Acquire) == client.owed.latest.load(Ordering::Acquire)
    }

    #[cold]
    fn close_and_wait(&'static self, client: &Client) -> CudaResult<()> {
        let mut debts = client.owed.lock();
        if let Some(own) = debts.iter_mut().find(|debt| debt.is_of(self)) {
            own.record(client)?;
        }
        self.wait_for_others(client, &mut debts)
    }

    fn wait_for_others(&'static self, client: &Client, debts: &mut [Debt]) -> CudaResult<()> {
        let behind = self.owed.behind.load(Ordering::Relaxed);
        let matters = |debt: &&mut Debt| !debt.is_of(self) && debt.number > behind && !debt.is_over();
        for debt in debts.iter_mut().filter(matters) {
            debt.record(client)?;
            let event = debt.event.number;
            client.post(&StreamWaitEvent { stream: self.number, event, flags: 0, reserved: 0 }, &[])?;
        }
        // SYNC POINT behind
        self.owed.behind.store(client.owed.latest.load(Ordering::Relaxed), Ordering::Release);
        Ok(())
    }

    /// Waits for what it owes: it is going to be destroyed, and another stream to have its number.
    pub(super) fn pay(&'static self) -> CudaResult<()> {
        let client = client()?;
        let event = {
            let mut debts = client.owed.lock();
            let Some(own) = debts.iter_mut().find(|debt| debt.is_of(self)) else { return Ok(()) };
            own.record(client)?;
            own.event
        };
        client.call(&EventSynchronize { event: event.number, reserved: 0 }, &[])?;
        client.owed.lock().retain(|debt| !debt.is_of(self));
        event.destroy()
    }
}

impl Debt {
    fn is_of(&self, stream: &Stream) -> bool {
        self.stream.number == stream.number
    }

    /// Whether what is owed is known to be done.
    fn is_over(&self) -> bool {
        self.stream.is_done_up_to(self.position)
    }

    /// Makes it a later one, of the same stream or in the place of another's that is over.
    fn renew(&mut self, stream: &'static Stream, number: u64, position: Position) {
        self.stream.owed.is_open.store(false, Ordering::Relaxed);
        (self.stream, self.number, self.position, self.is_recorded) = (stream, number, position, false);
    }

    /// Puts the event behind the uploads, unless it is there.
    fn record(&mut self, client: &Client) -> CudaResult<()> {
        if !self.is_recorded {
            let (event, stream) = (self.event.number, self.stream.number);
            client.post(&EventRecord { event, stream, flags: 0, reserved: 0 }, &[])?;
            self.is_recorded = true;
            self.stream.owed.is_open.store(false, Ordering::Relaxed);
        }
        Ok(())
    }
}
