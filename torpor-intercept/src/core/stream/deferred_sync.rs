//! Deferred synchronisations: answered before the GPU has done what they wait for.
//!
//! PyTorch synchronises after every upload of pageable memory, a thousand times while a model moves to the GPU. The bytes were
//! read when the upload was posted, and the program sees the device's memory only through later commands. Those of
//! the same stream come behind the upload anyway. So where a stream got uploads alone since it was known to be done, its
//! synchronisation is answered at once, and commands of other streams wait for those uploads on the GPU.
//!
//! While no synchronisation is deferred, this costs a stream's post three loads.

use super::Stream;
use super::progress::Position;
use crate::core::event::{DISABLE_TIMING, Event};
use crate::core::{Client, CudaResult, Remoting, client};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use torpor_proto::command::{EventRecord, EventSynchronize, StreamWaitEvent};

/// So many streams may have one. Every other stream waits for each of them: with more, synchronising is cheaper.
const MOST: usize = 4;

/// The deferred synchronisations of this process.
#[derive(Default)]
pub(in crate::core) struct DeferredSyncs {
    /// The number of the latest one. Written with `list` locked.
    latest: AtomicU64,
    list: Mutex<Vec<DeferredSync>>,
}

/// That of one stream.
struct DeferredSync {
    stream: &'static Stream,
    stream_id: u64,
    number: u64,
    /// What the stream had when it was asked to synchronise.
    position: Position,
    /// Recorded behind the uploads, when another stream has to wait for them or something else is to come behind them.
    event: &'static Event,
    is_recorded: bool,
    /// Its stream is being destroyed, and waits for the event: no other stream takes it over.
    is_settled: bool,
}

/// A stream's part.
pub(super) struct StreamDeferral {
    /// The latest deferred synchronisation that its commands come behind.
    behind: AtomicU64,
    /// Its own has no event yet: with anything but uploads behind it, other streams would wait for that, too.
    is_open: AtomicBool,
}

impl StreamDeferral {
    pub(super) const fn new() -> Self {
        Self { behind: AtomicU64::new(0), is_open: AtomicBool::new(false) }
    }

    /// For a new stream in the place of an old one.
    pub(super) fn renew(&self) {
        self.behind.store(0, Ordering::Relaxed);
        self.is_open.store(false, Ordering::Relaxed);
    }
}

impl DeferredSyncs {
    fn lock(&self) -> MutexGuard<'_, Vec<DeferredSync>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// Whether a synchronisation can be answered now, because it is deferred.
    pub(super) fn defer_sync(&'static self, client: &Client, position: Position) -> CudaResult<bool> {
        // Other processes' commands come behind nothing of this one's.
        let is_seen = client.remoting != Remoting::Full || client.ipc.is_used();
        if is_seen || !self.is_done_but_for_uploads(position) {
            return Ok(false);
        }
        let mut list = client.deferred.lock();
        let number = client.deferred.latest.load(Ordering::Relaxed) + 1;
        let own = list.iter().position(|deferred| deferred.is_of(self));
        match own.or_else(|| list.iter().position(DeferredSync::is_free)) {
            Some(at) if list[at].is_of(self) && list[at].position >= position => return Ok(true),
            Some(at) => list[at].renew(self, number, position),
            None if list.len() < MOST => {
                let (stream_id, event) = (self.id(), Event::create(DISABLE_TIMING)?);
                let deferred = DeferredSync {
                    stream: self,
                    stream_id,
                    number,
                    position,
                    event,
                    is_recorded: false,
                    is_settled: false,
                };
                list.push(deferred);
            }
            None => return Ok(false),
        }
        self.deferral.is_open.store(true, Ordering::Relaxed);
        if self.deferral.behind.load(Ordering::Relaxed) == number - 1 {
            self.deferral.behind.store(number, Ordering::Relaxed);
        }
        // SYNC POINT latest: a stream that comes behind this one finds it in the list.
        client.deferred.latest.store(number, Ordering::Release);
        Ok(true)
    }

    /// Before a command that is no upload: puts the waits in the ring that it needs.
    #[inline]
    pub(super) fn come_behind_deferred(&'static self, client: &Client) -> CudaResult<()> {
        if self.is_behind_all(client) && !self.deferral.is_open.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.close_and_wait(client)
    }

    /// Before an upload, as [`Self::come_behind_deferred`].
    pub(super) fn come_behind_deferred_of_others(&'static self, client: &Client) -> CudaResult<()> {
        if self.is_behind_all(client) {
            return Ok(());
        }
        self.wait_for_others(client, &mut client.deferred.lock())
    }

    #[inline]
    fn is_behind_all(&self, client: &Client) -> bool {
        // SYNC POINT latest, and SYNC POINT behind: the waits are in the ring.
        self.deferral.behind.load(Ordering::Acquire) == client.deferred.latest.load(Ordering::Acquire)
    }

    #[cold]
    fn close_and_wait(&'static self, client: &Client) -> CudaResult<()> {
        let mut list = client.deferred.lock();
        if let Some(own) = list.iter_mut().find(|deferred| deferred.is_of(self)) {
            own.record(client)?;
        }
        self.wait_for_others(client, &mut list)
    }

    fn wait_for_others(&'static self, client: &Client, list: &mut [DeferredSync]) -> CudaResult<()> {
        let behind = self.deferral.behind.load(Ordering::Relaxed);
        let matters =
            |other: &&mut DeferredSync| !other.is_of(self) && other.number > behind && !other.is_over();
        for other in list.iter_mut().filter(matters) {
            other.record(client)?;
            let event = other.event.number;
            client.post(&StreamWaitEvent { stream: self.number, event, flags: 0, reserved: 0 }, &[])?;
        }
        // SYNC POINT behind
        self.deferral.behind.store(client.deferred.latest.load(Ordering::Relaxed), Ordering::Release);
        Ok(())
    }

    /// Waits for what was deferred: the stream is going to be destroyed, and another one to have its number.
    pub(super) fn settle_deferred(&'static self) -> CudaResult<()> {
        let client = client()?;
        let (event, position) = {
            let mut list = client.deferred.lock();
            let Some(own) = list.iter_mut().find(|deferred| deferred.is_of(self)) else { return Ok(()) };
            own.record(client)?;
            own.is_settled = true;
            (own.event, own.position)
        };
        // Others come behind it as long as it is in the list.
        client.call(&EventSynchronize { event: event.number, reserved: 0 }, &[])?;
        self.mark_done_up_to(position);
        client.deferred.lock().retain(|deferred| !deferred.is_of(self));
        event.destroy()
    }
}

impl DeferredSync {
    fn is_of(&self, stream: &Stream) -> bool {
        self.stream_id == stream.id()
    }

    /// Whether the work is known to be done.
    fn is_over(&self) -> bool {
        self.stream.is_done_up_to(self.position)
    }

    /// Whether another stream may have it.
    fn is_free(&self) -> bool {
        self.is_over() && !self.is_settled
    }

    /// Makes it a later one, of the same stream or in the place of another's that is over.
    fn renew(&mut self, stream: &'static Stream, number: u64, position: Position) {
        self.close();
        (self.stream, self.stream_id, self.number) = (stream, stream.id(), number);
        (self.position, self.is_recorded) = (position, false);
    }

    /// Puts the event behind the uploads, unless it is there.
    fn record(&mut self, client: &Client) -> CudaResult<()> {
        if !self.is_recorded {
            let (event, stream) = (self.event.number, self.stream.number);
            client.post(&EventRecord { event, stream, flags: 0, reserved: 0 }, &[])?;
            self.is_recorded = true;
            self.close();
        }
        Ok(())
    }

    /// Others need not wait for what comes behind it in its stream.
    fn close(&self) {
        if self.is_of(self.stream) {
            self.stream.deferral.is_open.store(false, Ordering::Relaxed);
        }
    }
}
