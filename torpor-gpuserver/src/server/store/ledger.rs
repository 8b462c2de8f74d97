//! The index, and what was done to it since the last whole record, so that the next server has it as it was.
//!
//! The index is pure: the same deeds in the same order make the same index, with the same chunks in the same slots. So each deed is
//! written down as soon as it is done, and before anybody is told of what came of it; the next server does them again. Now and then
//! the whole index is written in the place of all deeds so far.
//!
//! A worker that asked something and had no answer asks the next server again, by the same number. So what was done for it is answered
//! from here, and not done twice; and what a worker only says has a number too, by which the next server knows what was heard.

#[cfg(test)]
mod tests;
mod written;

use crate::chunk::Hash;
use crate::server::clients::ClientId;
use crate::server::keeper::Keeper;
use crate::server::store::WorkerId;
use crate::server::store::deeds::DeedFile;
use crate::server::store::index::{ChunkId, Index, Misuse, Place, RestoreTicket, SpillTicket, Spilled};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use torpor_proto::control::keeper::{self, deed};
use written::Tickets;

/// Under what name the file is kept.
pub(super) const NAME: &str = "deeds";

/// So much of deeds is written down before the whole index is.
const MOST_BYTES: u64 = 16 << 20;

/// Answers of a client that may have to be given again: it waits for one at a time, and may have given up the one before.
const MOST_ANSWERS: usize = 2;

/// A request or message of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// Which worker.
    pub worker: WorkerId,
    /// Its number there.
    pub request: u64,
}

/// The index of a store, written down. Whatever only looks at it does so through [`Deref`].
#[derive(Debug)]
pub(super) struct Ledger {
    index: Index,
    slab_slots: u32,
    functions: BTreeMap<ClientId, Arc<str>>,
    answers: BTreeMap<ClientId, VecDeque<(Asked, Vec<Place>)>>,
    heard: BTreeMap<WorkerId, u64>,
    keeper: Keeper,
    /// `None` without a keeper, or memory.
    file: Option<DeedFile>,
    /// Whether there is a server after this one.
    is_written: bool,
    /// The length that the whole index had when it was written last.
    whole_bytes: u64,
}

impl Deref for Ledger {
    type Target = Index;

    fn deref(&self) -> &Index {
        &self.index
    }
}

impl Ledger {
    /// Of an empty store.
    pub(super) fn new(slab_slots: u32, keeper: Keeper) -> Self {
        let mut ledger = Self::of(Index::new(slab_slots), slab_slots, keeper);
        ledger.write_whole();
        ledger
    }

    fn of(index: Index, slab_slots: u32, keeper: Keeper) -> Self {
        Self {
            index,
            slab_slots,
            functions: BTreeMap::new(),
            answers: BTreeMap::new(),
            heard: BTreeMap::new(),
            is_written: keeper.is_there(),
            keeper,
            file: None,
            whole_bytes: 0,
        }
    }

    /// As the server before left it. What was on its way to a file stays in its slot, and what was on its way back in its file.
    ///
    /// # Errors
    /// The kernel's, or `InvalidData` if that is not possible.
    pub(super) fn inherit(file: OwnedFd, slab_slots: u32, keeper: Keeper) -> io::Result<Self> {
        let mut deeds = DeedFile::read(file)?.into_iter().filter_map(|deed| deed.deed);
        let Some(deed::Deed::Index(whole)) = deeds.next() else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        if whole.slab_slots != slab_slots {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "--host-slab was another one"));
        }
        let index = Index::from_record(&whole).ok_or(io::ErrorKind::InvalidData)?;
        let mut ledger = Self::of(index, slab_slots, keeper);
        ledger.recall(whole);
        let mut on_their_way = Tickets::default();
        for deed in deeds {
            ledger.redo(deed, &mut on_their_way).ok_or(io::ErrorKind::InvalidData)?;
        }
        for ticket in on_their_way.spills.into_values() {
            let _ = ledger.index.end_spill(ticket, Spilled::Failed);
        }
        for ticket in on_their_way.restores.into_values() {
            let _ = ledger.index.end_restore(ticket, false);
        }
        ledger.index.begin_anew();
        ledger.write_whole();
        Ok(ledger)
    }

    /// Clients and their functions.
    pub(super) fn functions(&self) -> impl Iterator<Item = (ClientId, Arc<str>)> {
        self.functions.iter().map(|(&client, function)| (client, function.clone()))
    }

    /// What was answered to this before.
    pub(super) fn answered(&self, client: ClientId, asked: Asked) -> Option<Vec<Place>> {
        let answers = self.answers.get(&client)?;
        answers.iter().find(|(known, _)| *known == asked).map(|(_, places)| places.clone())
    }

    /// Whether this was heard before.
    pub(super) fn was_heard(&self, said: Asked) -> bool {
        self.heard.get(&said.worker).is_some_and(|&last| said.request <= last)
    }

    /// A worker is gone, and says nothing again.
    pub(super) fn gone(&mut self, worker: WorkerId) {
        self.heard.remove(&worker);
    }

    pub(super) fn admit(&mut self, client: ClientId, function: &str) {
        self.index.admit(client);
        self.functions.insert(client, function.into());
        self.note(|| deed::Deed::Admit(keeper::Admit { client: client.0, function: function.to_owned() }));
    }

    pub(super) fn forget(&mut self, client: ClientId) -> Vec<ChunkId> {
        let files = self.index.forget(client);
        self.functions.remove(&client);
        self.answers.remove(&client);
        self.note(|| deed::Deed::Forget(client.0));
        files
    }

    pub(super) fn touch(&mut self, client: ClientId) {
        self.index.touch(client);
        self.note(|| deed::Deed::Touch(client.0));
    }

    pub(super) fn reserve(
        &mut self,
        client: ClientId,
        count: usize,
        asked: Asked,
    ) -> Result<Option<Vec<Place>>, Misuse> {
        let places = self.index.reserve(client, count)?;
        if let Some(places) = &places {
            self.answer(client, asked, places);
            self.note(|| {
                let (count, asked) = (count as u64, Some(asked.into()));
                deed::Deed::Reserve(keeper::Reserve { client: client.0, count, asked })
            });
        }
        Ok(places)
    }

    pub(super) fn identify(
        &mut self,
        client: ClientId,
        (contents, is_named): (&[(ChunkId, Hash)], bool),
        asked: Asked,
    ) -> Result<(Vec<Place>, Vec<ChunkId>), Misuse> {
        let (places, files) = self.index.identify(client, contents)?;
        if is_named {
            let now = places.iter().map(|place| place.chunk);
            self.index.rename(client, contents.iter().map(|&(name, _)| name).zip(now));
        }
        self.answer(client, asked, &places);
        self.note(|| {
            let chunks = contents.iter().map(|&(chunk, _)| chunk).collect();
            let hashes = contents.iter().flat_map(|(_, hash)| *hash).collect();
            deed::Deed::Identify(keeper::Identify {
                client: client.0,
                chunks,
                hashes,
                asked: Some(asked.into()),
                is_named,
            })
        });
        Ok((places, files))
    }

    pub(super) fn forget_names(&mut self, client: ClientId) {
        if self.index.has_names(client) {
            self.index.forget_names(client);
            self.note(|| deed::Deed::ForgetNames(client.0));
        }
    }

    pub(super) fn release(
        &mut self,
        client: ClientId,
        chunks: &[ChunkId],
        said: Asked,
    ) -> (Vec<ChunkId>, Result<(), Misuse>) {
        let released = self.index.release(client, chunks);
        self.hear(said);
        self.note(|| {
            let (chunks, heard) = (chunks.to_vec(), Some(said.into()));
            deed::Deed::Release(keeper::Release { client: client.0, chunks, heard })
        });
        released
    }

    pub(super) fn share(
        &mut self,
        client: ClientId,
        others: &[ClientId],
        chunks: &[ChunkId],
        said: Asked,
    ) -> Result<(), Misuse> {
        let shared = self.index.share(client, others, chunks);
        self.hear(said);
        self.note(|| {
            let (others, chunks) = (others.iter().map(|other| other.0).collect(), chunks.to_vec());
            deed::Deed::Share(keeper::Share { client: client.0, others, chunks, heard: Some(said.into()) })
        });
        shared
    }

    /// The client does not use its slots any more, as a worker has `said` if one has.
    pub(super) fn revoked(&mut self, client: ClientId, said: Option<Asked>) {
        self.index.revoked(client);
        said.into_iter().for_each(|said| self.hear(said));
        self.note(|| {
            let heard = said.map(keeper::Asked::from);
            deed::Deed::Revoked(keeper::Revoked { client: client.0, heard })
        });
    }

    pub(super) fn want_lease(&mut self, client: ClientId) -> Result<(), Misuse> {
        self.index.want_lease(client)?;
        self.note(|| deed::Deed::WantLease(client.0));
        Ok(())
    }

    pub(super) fn drop_wish(&mut self, client: ClientId) {
        self.index.drop_wish(client);
        self.note(|| deed::Deed::DropWish(client.0));
    }

    pub(super) fn grant(&mut self, client: ClientId) -> Result<Option<Vec<Place>>, Misuse> {
        let places = self.index.grant(client)?;
        if places.is_some() {
            self.note(|| deed::Deed::Grant(client.0));
        }
        Ok(places)
    }

    pub(super) fn revoke_next(&mut self, may: impl Fn(ClientId) -> bool) -> Option<ClientId> {
        let chosen = self.index.revoke_next(may)?;
        self.note(|| deed::Deed::Revoke(chosen.0));
        Some(chosen)
    }

    pub(super) fn suspend_next(&mut self, waits: impl Fn(ClientId) -> bool) -> Option<ClientId> {
        let chosen = self.index.suspend_next(waits)?;
        self.note(|| deed::Deed::Suspend(chosen.0));
        Some(chosen)
    }

    pub(super) fn begin_spills(&mut self, most: usize) -> Vec<SpillTicket> {
        let tickets = self.index.begin_spills(most);
        if !tickets.is_empty() {
            self.note(|| deed::Deed::BeginSpills(u32::try_from(most).unwrap_or(u32::MAX)));
        }
        tickets
    }

    pub(super) fn end_spill(&mut self, ticket: SpillTicket, spilled: Spilled) -> bool {
        let chunk = ticket.chunk;
        let counts = self.index.end_spill(ticket, spilled);
        self.note(|| {
            let hash = if let Spilled::Written(hash) = spilled { hash.to_vec() } else { Vec::new() };
            let damaged = spilled == Spilled::Damaged;
            deed::Deed::EndSpill(keeper::EndSpill { chunk, hash, damaged })
        });
        counts
    }

    pub(super) fn begin_restore(&mut self, chunk: ChunkId) -> Option<RestoreTicket> {
        let ticket = self.index.begin_restore(chunk)?;
        self.note(|| deed::Deed::BeginRestore(chunk));
        Some(ticket)
    }

    pub(super) fn end_restore(&mut self, ticket: RestoreTicket, done: bool) -> bool {
        let chunk = ticket.chunk;
        let is_stale = self.index.end_restore(ticket, done);
        self.note(|| deed::Deed::EndRestore(keeper::EndRestore { chunk, done }));
        is_stale
    }

    pub(super) fn add_slab(&mut self) {
        self.index.add_slab();
        self.note(|| deed::Deed::AddSlab(true));
    }

    pub(super) fn take_slab(&mut self) -> bool {
        let is_taken = self.index.take_slab();
        if is_taken {
            self.note(|| deed::Deed::TakeSlab(true));
        }
        is_taken
    }

    fn answer(&mut self, client: ClientId, asked: Asked, places: &[Place]) {
        // Nobody asks again.
        if !self.is_written {
            return;
        }
        let answers = self.answers.entry(client).or_default();
        answers.push_back((asked, places.to_vec()));
        if answers.len() > MOST_ANSWERS {
            answers.pop_front();
        }
    }

    fn hear(&mut self, said: Asked) {
        self.heard.insert(said.worker, said.request);
    }
}
