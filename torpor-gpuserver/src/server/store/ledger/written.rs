//! Deeds as they are written down, and done again.

use super::{Asked, Ledger, MOST_BYTES, NAME};
use crate::chunk::Hash;
use crate::server::clients::ClientId;
use crate::server::store::WorkerId;
use crate::server::store::deeds::DeedFile;
use crate::server::store::index::{ChunkId, Place, RestoreTicket, SpillTicket, Spilled};
use std::collections::BTreeMap;
use torpor_proto::control::keeper::{self, Deed, deed};

/// What is on its way to and from files.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    pub(super) spills: BTreeMap<ChunkId, SpillTicket>,
    pub(super) restores: BTreeMap<ChunkId, RestoreTicket>,
}

impl Ledger {
    /// Writes down what was just done, or the whole index where that is due.
    pub(super) fn note(&mut self, deed: impl FnOnce() -> deed::Deed) {
        let Some(file) = &mut self.file else { return };
        if file.bytes() > MOST_BYTES.max(2 * self.whole_bytes) && self.index.is_quiet() {
            self.write_whole();
        } else if let Err(error) = file.append(&Deed { deed: Some(deed()) }) {
            self.give_up(&error);
        }
    }

    /// Writes the whole index, into a file that takes the place of the one before.
    pub(super) fn write_whole(&mut self) {
        if !self.keeper.is_there() {
            return;
        }
        let whole = Deed { deed: Some(deed::Deed::Index(self.whole())) };
        let written = DeedFile::create().and_then(|mut file| file.append(&whole).map(|()| file));
        match written {
            Ok(file) => {
                self.whole_bytes = file.bytes();
                self.keeper.keep(NAME, &(), &[file.descriptor()]);
                self.file = Some(file);
            }
            Err(error) => self.give_up(&error),
        }
    }

    fn give_up(&mut self, error: &std::io::Error) {
        tracing::error!(
            "a server after this one cannot go on with the host store, as that cannot be written down: {error}"
        );
        self.file = None;
        self.keeper.forget(NAME);
    }

    fn whole(&self) -> keeper::Index {
        let mut whole = self.index.to_record(self.slab_slots);
        for client in &mut whole.clients {
            let function = self.functions.get(&ClientId(client.client));
            client.function = function.map_or_else(String::new, |function| (**function).to_owned());
        }
        let answers = self.answers.iter();
        let answers =
            answers.flat_map(|(client, answers)| answers.iter().map(move |answer| (client, answer)));
        let answer = |(client, (asked, places)): (&ClientId, &(Asked, Vec<Place>))| keeper::Answer {
            client: client.0,
            asked: Some((*asked).into()),
            chunks: places.iter().map(|place| place.chunk).collect(),
            slots: places.iter().map(|place| place.slot).collect(),
        };
        whole.answers = answers.map(answer).collect();
        let heard = |(&worker, &request): (&WorkerId, &u64)| Asked { worker, request }.into();
        whole.heard = self.heard.iter().map(heard).collect();
        whole
    }

    /// What is in a whole record beside the index.
    pub(super) fn recall(&mut self, whole: keeper::Index) {
        for client in whole.clients {
            self.functions.insert(ClientId(client.client), client.function.into());
        }
        for keeper::Answer { client, asked, chunks, slots } in whole.answers {
            let places = chunks.into_iter().zip(slots).map(|(chunk, slot)| Place { chunk, slot });
            let answers = self.answers.entry(ClientId(client)).or_default();
            answers.push_back((asked.unwrap_or_default().into(), places.collect()));
        }
        let heard = whole.heard.into_iter().map(Asked::from);
        self.heard.extend(heard.map(|Asked { worker, request }| (worker, request)));
    }

    /// Does again what was written down. `None` if it cannot be what was done.
    pub(super) fn redo(&mut self, deed: deed::Deed, tickets: &mut Tickets) -> Option<()> {
        let ids = |clients: Vec<u64>| clients.into_iter().map(ClientId).collect::<Vec<_>>();
        match deed {
            deed::Deed::Index(_) => return None,
            deed::Deed::Admit(its) => self.admit(ClientId(its.client), &its.function),
            deed::Deed::Forget(client) => drop(self.forget(ClientId(client))),
            deed::Deed::Touch(client) => self.touch(ClientId(client)),
            deed::Deed::Reserve(its) => {
                let count = usize::try_from(its.count).ok()?;
                self.reserve(ClientId(its.client), count, its.asked.unwrap_or_default().into()).ok()??;
            }
            deed::Deed::Release(its) => {
                drop(self.release(ClientId(its.client), &its.chunks, its.heard.unwrap_or_default().into()));
            }
            deed::Deed::Share(its) => {
                let said = its.heard.unwrap_or_default().into();
                // What was refused then is refused again.
                let _ = self.share(ClientId(its.client), &ids(its.others), &its.chunks, said);
            }
            deed::Deed::Identify(its) => {
                let (hashes, rest) = its.hashes.as_chunks::<{ size_of::<Hash>() }>();
                if !rest.is_empty() || hashes.len() != its.chunks.len() {
                    return None;
                }
                let contents: Vec<_> = its.chunks.iter().copied().zip(hashes.iter().copied()).collect();
                let asked = its.asked.unwrap_or_default().into();
                self.identify(ClientId(its.client), (&contents, its.is_named), asked).ok()?;
            }
            deed::Deed::ForgetNames(client) => self.forget_names(ClientId(client)),
            deed::Deed::WantLease(client) => self.want_lease(ClientId(client)).ok()?,
            deed::Deed::DropWish(client) => self.drop_wish(ClientId(client)),
            deed::Deed::Grant(client) => drop(self.grant(ClientId(client)).ok()??),
            deed::Deed::Revoke(client) => drop(self.revoke_next(|other| other.0 == client)?),
            deed::Deed::Suspend(client) => drop(self.suspend_next(|other| other.0 == client)?),
            deed::Deed::Revoked(its) => self.revoked(ClientId(its.client), its.heard.map(Asked::from)),
            deed::Deed::BeginSpills(most) => {
                let begun = self.begin_spills(most as usize);
                tickets.spills.extend(begun.into_iter().map(|ticket| (ticket.chunk, ticket)));
            }
            deed::Deed::EndSpill(its) => {
                let spilled = match Hash::try_from(its.hash.as_slice()) {
                    Ok(hash) => Spilled::Written(hash),
                    Err(_) if its.damaged => Spilled::Damaged,
                    Err(_) => Spilled::Failed,
                };
                let ticket = tickets.spills.remove(&its.chunk)?;
                self.end_spill(ticket, spilled);
            }
            deed::Deed::BeginRestore(chunk) => {
                let ticket = self.begin_restore(chunk)?;
                tickets.restores.insert(chunk, ticket);
            }
            deed::Deed::EndRestore(its) => {
                let ticket = tickets.restores.remove(&its.chunk)?;
                self.end_restore(ticket, its.done);
            }
            deed::Deed::AddSlab(_) => self.add_slab(),
            deed::Deed::TakeSlab(_) => self.take_slab().then_some(())?,
        }
        Some(())
    }
}

impl From<Asked> for keeper::Asked {
    fn from(asked: Asked) -> Self {
        Self { worker: asked.worker.0, request: asked.request }
    }
}

impl From<keeper::Asked> for Asked {
    fn from(asked: keeper::Asked) -> Self {
        Self { worker: WorkerId(asked.worker), request: asked.request }
    }
}
