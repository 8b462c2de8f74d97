//! Slabs are made in the background, ahead of need, until the pool is as large as it may be.

use super::{State, Store, WorkerId};
use crate::chunk::CHUNK_BYTES;
use crate::server::clients::ClientId;
use crate::server::keeper::numbered;
use crate::server::size::ByteSize;
use crate::server::store::index::Place;
use crate::server::store::inherited::SLAB;
use crate::server::store::slab::Slab;
use crate::server::store::workers::Reach;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use torpor_proto::control::keeper;

/// How long to wait after the system had no memory, before it is asked again.
const RETRY_PAUSE: Duration = Duration::from_secs(10);

/// Whether a slab is being made.
#[derive(Debug)]
pub enum Growth {
    /// No.
    Idle,
    /// Yes.
    Making,
    /// No, the system refused one.
    Failed {
        /// When.
        at: Instant,
        /// Why.
        reason: String,
    },
}

/// Whether there will be more slots.
#[derive(Debug, PartialEq, Eq)]
pub enum Outlook {
    /// There are enough, or more are on their way.
    Good,
    /// The pool is as large as it may be.
    Full,
    /// The pool may be larger, but it does not work.
    Blocked(String),
}

impl Store {
    /// A worker's clients may need so much for what they have on the GPU: it is made before they have to leave, which would else
    /// wait for it (0.1 s a GiB, and as long again for the worker to lock it).
    pub(in crate::server) fn expect(self: &Arc<Self>, worker: WorkerId, bytes: u64) {
        let slots = usize::try_from(bytes.div_ceil(CHUNK_BYTES)).unwrap_or(usize::MAX);
        let mut state = self.state();
        let before = state.expected.insert(worker, slots);
        if before.is_none_or(|before| before < slots) {
            self.advance(&mut state);
        }
    }

    /// Takes a slab into use that all workers have page-locked, and begins to make another one if few slots are free.
    pub(super) fn advance(self: &Arc<Self>, state: &mut State) -> Outlook {
        if let Some(outlook) = self.finish_return(state) {
            return outlook;
        }
        let made = u32::try_from(state.slabs.len()).unwrap_or(u32::MAX);
        let usable = u32::try_from(state.index.total_slots()).unwrap_or(u32::MAX) / self.slab_slots;
        if made > usable {
            match state.workers.reach(usable) {
                Reach::All => {
                    state.index.add_slab();
                    let total = u64::from(usable + 1) * self.slab_bytes;
                    tracing::info!("the host pool has {} now", ByteSize(total));
                    self.wake();
                    self.pool.arrived();
                }
                Reach::Soon => return Outlook::Good,
                Reach::Never(reason) => return Outlook::Blocked(reason),
            }
        }
        let ahead = match self.pool.is_wanted() {
            true => 0,
            false => state.expected().max(self.slab_slots as usize),
        };
        if state.index.free_slots() >= state.wanted.max(ahead) {
            return Outlook::Good;
        }
        match &state.growth {
            Growth::Making => return Outlook::Good,
            Growth::Failed { at, reason } if at.elapsed() < RETRY_PAUSE => {
                return Outlook::Blocked(reason.clone());
            }
            _ if !self.pool.take(made) => return Outlook::Full,
            _ => state.growth = Growth::Making,
        }
        tokio::spawn(self.clone().make_slab(made));
        Outlook::Good
    }

    async fn make_slab(self: Arc<Self>, index: u32) {
        let (bytes, ending) = (self.slab_bytes, self.ending.clone());
        let make = move || Slab::make(index, bytes, &|| ending.load(Ordering::Relaxed));
        let made = tokio::task::spawn_blocking(make).await.map_err(std::io::Error::other).flatten();
        let mut state = self.state();
        match made {
            Ok(slab) => {
                let slab = Arc::new(slab);
                state.growth = Growth::Idle;
                let words = keeper::Slab { bytes };
                self.keeper.keep(&numbered(SLAB, index.into()), &words, &[slab.file()]);
                state.workers.offer(&slab);
                state.slabs.push(slab);
                self.advance(&mut state);
            }
            Err(error) => {
                self.pool.give_back(1);
                let reason = format!("the system gives no {} of shared memory: {error}", ByteSize(bytes));
                if !self.ending.load(Ordering::Relaxed) {
                    tracing::error!("the host pool does not grow: {reason}; is --host-pool too large?");
                }
                state.growth = Growth::Failed { at: Instant::now(), reason };
            }
        }
        drop(state);
        self.wake();
    }
}

impl State {
    /// Slots that may be needed for what is on GPUs.
    fn expected(&self) -> usize {
        self.expected.values().fold(0, |all, &slots| all.saturating_add(slots))
    }

    /// What a client has reserved now is not expected any more, until its worker says again what is.
    pub(super) fn note_reserved(&mut self, client: ClientId, places: Option<&[Place]>) {
        let worker = self.clients.get(&client).and_then(|owner| owner.worker);
        if let (Some(expected), Some(places)) =
            (worker.and_then(|worker| self.expected.get_mut(&worker)), places)
        {
            *expected = expected.saturating_sub(places.len());
        }
    }
}
