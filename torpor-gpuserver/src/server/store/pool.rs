//! The pool: the slabs that all stores of a node have together. One that has no room, where no more slabs may be made, asks the
//! others for a slab in which nothing lies.

use super::growth::{Growth, Outlook};
use super::{State, Store};
use crate::server::keeper::numbered;
use crate::server::size::ByteSize;
use crate::server::store::inherited::SLAB;
use crate::server::store::workers::Reach;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// What all stores of a node share.
#[derive(Debug)]
pub(super) struct Pool {
    max_slabs: u32,
    slabs: AtomicU32,
    stores: Mutex<Vec<Weak<Store>>>,
    /// Requests that wait for a slab of another store.
    wanting: AtomicU32,
}

/// A request that waits for a slab of another store: nobody makes one ahead of need meanwhile.
#[derive(Debug)]
pub(super) struct Wanting<'a>(&'a Pool);

impl Pool {
    /// One that may have so many slabs, and has some.
    pub(super) fn new(max_slabs: u32, slabs: u32) -> Arc<Self> {
        let (slabs, wanting) = (AtomicU32::new(slabs), AtomicU32::new(0));
        Arc::new(Self { max_slabs, slabs, stores: Mutex::default(), wanting })
    }

    /// How many slabs there may be.
    pub(super) fn max_slabs(&self) -> u32 {
        self.max_slabs
    }

    /// There is another store.
    pub(super) fn join(&self, store: &Arc<Store>) {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        stores.retain(|store| store.strong_count() > 0);
        stores.push(Arc::downgrade(store));
    }

    /// Takes one more slab for a store that has so many. Each may have one.
    pub(super) fn take(&self, has: u32) -> bool {
        let more = |slabs: u32| (has == 0 || slabs < self.max_slabs).then_some(slabs.saturating_add(1));
        self.slabs.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// So many slabs are gone: whoever waits for one looks again.
    pub(super) fn give_back(&self, slabs: usize) {
        self.slabs.fetch_sub(u32::try_from(slabs).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.stores().iter().for_each(|store| store.wake());
    }

    /// Asks the other stores for a slab. True if one is on its way, or is about to be where nobody waits for it. Call it without a store's
    /// state.
    pub(super) fn ask_others(&self, asker: &Arc<Store>) -> bool {
        let mut others = self.stores();
        others.retain(|store| !Arc::ptr_eq(store, asker));
        others.iter().any(|store| store.return_slab()) || others.iter().any(|store| store.makes_ahead())
    }

    /// A slab has come to a store: whoever waits for one asks again.
    pub(super) fn arrived(&self) {
        if self.is_wanted() {
            self.stores().iter().for_each(|store| store.wake());
        }
    }

    /// A request waits for that.
    pub(super) fn want(&self) -> Wanting<'_> {
        self.wanting.fetch_add(1, Ordering::Relaxed);
        Wanting(self)
    }

    /// Whether any does.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanting.load(Ordering::Relaxed) > 0
    }

    fn stores(&self) -> Vec<Arc<Store>> {
        let stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        stores.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        self.0.wanting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Store {
    /// Begins to give the last slab back, if nothing lies there and nobody waits for room here. True if one is on its way.
    fn return_slab(self: &Arc<Self>) -> bool {
        let mut state = self.state();
        if state.returning.is_some() {
            return true;
        }
        let Some(index) = state.slabs.len().checked_sub(1) else { return false };
        let usable = state.index.total_slots() / self.slab_slots as usize;
        let index_there = u32::try_from(index).unwrap_or(u32::MAX);
        // One that is being made has the next number already.
        let is_settled = !matches!(state.growth, Growth::Making)
            && usable == state.slabs.len()
            && state.workers.reach(index_there) == Reach::All;
        if !is_settled || state.is_room_awaited() || !state.index.take_slab() {
            return false;
        }
        state.slabs.pop();
        state.workers.take_back(index_there);
        state.returning = Some(index_there);
        tracing::info!("the host pool gives {} to another store", ByteSize(self.slab_bytes));
        self.finish_return(&mut state);
        true
    }

    /// Whether a slab is being made here, or page-locked, for which nobody waits.
    fn makes_ahead(&self) -> bool {
        let state = self.state();
        let usable = state.index.total_slots() / self.slab_slots as usize;
        let reach = || state.workers.reach(u32::try_from(usable).unwrap_or(u32::MAX));
        let is_locked = usable < state.slabs.len() && !matches!(reach(), Reach::Never(_));
        (is_locked || matches!(state.growth, Growth::Making)) && !state.is_room_awaited()
    }

    /// What can be said of growth while a slab is being given back. The slab is gone when no worker has it any more.
    pub(super) fn finish_return(&self, state: &mut State) -> Option<Outlook> {
        let index = state.returning?;
        if state.workers.hold(index) {
            return Some(Outlook::Good);
        }
        state.returning = None;
        self.keeper.forget(&numbered(SLAB, index.into()));
        self.pool.give_back(1);
        None
    }
}

impl State {
    /// Whether anybody looks for room here.
    fn is_room_awaited(&self) -> bool {
        self.clients.values().any(|owner| owner.queued > 0 || owner.reserving > 0)
    }
}
