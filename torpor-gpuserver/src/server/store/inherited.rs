//! The store that a server has left which was killed.
//!
//! What lies in slabs and files is as it was. What was asked and not answered is asked again by the workers.

use super::{State, Store, StoreOptions, WorkerId};
use crate::server::clients::ClientId;
use crate::server::keeper::{Heritage, Keeper, numbered};
use crate::server::store::ledger::{self, Ledger};
use crate::server::store::slab::Slab;
use crate::server::store::spill::SpillFiles;
use crate::server::workers::order::Outgoing;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use tokio::sync::mpsc;
use torpor_proto::control::keeper;

/// Under what kind of name slabs are kept.
pub(super) const SLAB: &str = "slab";

impl Store {
    /// Takes the store over. `lock` is that of the directory for spilling, if there is one.
    ///
    /// # Errors
    /// The kernel's, or `InvalidData` if what was left cannot be taken over.
    pub fn inherit(
        options: &StoreOptions,
        keeper: &Keeper,
        heritage: &mut Heritage,
        lock: Option<OwnedFd>,
    ) -> io::Result<Arc<Self>> {
        let missing = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{what} is missing"));
        let mut slabs = Vec::new();
        while let Some((keeper::Slab { bytes }, files)) = heritage.take(&numbered(SLAB, slabs.len() as u64)) {
            let file = files.into_iter().next().ok_or_else(|| missing("a slab's memory"))?;
            let index = u32::try_from(slabs.len()).map_err(io::Error::other)?;
            slabs.push(Arc::new(Slab::inherit(index, file, bytes)?));
        }
        let (_, deeds) = heritage.take::<()>(ledger::NAME).ok_or_else(|| missing("what was done"))?;
        let deeds = deeds.into_iter().next().ok_or_else(|| missing("what was done"))?;
        let slab_slots = super::slab_slots(options);
        let index = Ledger::inherit(deeds, slab_slots, keeper.clone())?;
        if index.total_slots() > slabs.len() * slab_slots as usize {
            return Err(missing("a slab"));
        }
        let files = match (&options.spill, lock) {
            (Some(spill), Some(lock)) => {
                Some(SpillFiles::inherit(&spill.directory, lock, |chunk| index.is_in_file(chunk))?)
            }
            (None, None) => None,
            _ => return Err(missing("the directory for spilling, or its lock,")),
        };
        Ok(Self::with(options, keeper, files, index, slabs))
    }

    /// The clients that are still there, or have still to go, are these: others are forgotten.
    pub fn keep_alone(self: &Arc<Self>, clients: impl Fn(ClientId) -> bool) {
        let gone: Vec<_> = self.state().index.clients().filter(|&client| !clients(client)).collect();
        gone.into_iter().for_each(|client| self.forget(client));
    }

    /// A worker that was there before is there, with these clients, as far as is known: it says itself which slabs it has page-locked, and then that it has
    /// [said so](Self::resumed).
    pub fn reconnect(
        &self,
        worker: WorkerId,
        gpu: u32,
        outbox: mpsc::UnboundedSender<Outgoing>,
        clients: impl Iterator<Item = u64>,
    ) {
        let mut state = self.state();
        let State { workers, slabs, clients: owners, .. } = &mut *state;
        workers.reconnect(worker, gpu, outbox, slabs.iter());
        for client in clients {
            if let Some(owner) = owners.get_mut(&ClientId(client)) {
                owner.worker = Some(worker);
            }
        }
    }

    /// A worker that was there before has said which slabs it has: it is told of the others.
    pub fn resumed(self: &Arc<Self>, worker: WorkerId) {
        let mut state = self.state();
        let State { workers, slabs, .. } = &mut *state;
        workers.offer_missing(worker, slabs.iter());
        self.advance(&mut state);
        drop(state);
        self.wake();
    }

    /// The directory's lock, to be kept.
    #[must_use]
    pub fn spill_lock(&self) -> Option<BorrowedFd<'_>> {
        self.files.as_ref().map(|files| files.lock())
    }
}
