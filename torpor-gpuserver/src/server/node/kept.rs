//! Clients as the keeper knows them, and as the next server goes on with them.
//!
//! What is kept of a client: who it is and where (`client`), before its worker hears of it and whenever that changes; its memory and its
//! lifeline (`memory`), once it is served and before it is handed its memory; and what it is (`state`), as its worker says. Nothing is
//! kept of those of strict functions, whose workers and store end with the server.
//!
//! Where clients that go together belong is kept in one word (`party`) as long as what is kept of each may not say so yet.

use crate::policy::event::What;
use crate::server::clients::{Client, ClientId, Introduction};
use crate::server::entrance::function::Entrance;
use crate::server::entrance::function_log::FunctionLog;
use crate::server::entrance::lifeline;
use crate::server::keeper::numbered;
use crate::server::node::Node;
use crate::server::workers::order::ClientMemory;
use crate::server::workers::served::STATE;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::SystemTime;
use torpor_proto::control::keeper;

/// Under what kinds of names clients are kept, and their memory.
pub(in crate::server) const CLIENT: &str = "client";
pub(in crate::server) const MEMORY: &str = "memory";

/// Under what kind of name it is kept where clients belong that go together.
pub(in crate::server) const PARTY: &str = "party";

/// Under what name the greatest number of a client is.
pub(in crate::server) const COUNTER: &str = "counter";

/// The clients of the server before.
#[derive(Debug)]
pub(in crate::server) struct Legacies {
    /// Where each belongs, which is not what is kept of it alone where it was going with others.
    pub(in crate::server) clients: Vec<Legacy>,
    /// Those that were going together.
    pub(in crate::server) parties: Vec<keeper::Party>,
    /// The greatest number of a client.
    pub(in crate::server) last_id: u64,
}

/// A client of the server before.
#[derive(Debug)]
pub(in crate::server) struct Legacy {
    pub(in crate::server) words: keeper::Client,
    /// `None` if it is only to be let go of.
    pub(in crate::server) memory: Option<LegacyMemory>,
}

/// What is kept of a client that is served.
#[derive(Debug)]
pub(in crate::server) struct LegacyMemory {
    pub(in crate::server) memory: Arc<ClientMemory>,
    pub(in crate::server) lifeline: OwnedFd,
    /// Its process, if that can be watched.
    pub(in crate::server) process: Option<OwnedFd>,
}

impl Node {
    /// The next server is to know of a client, as it is now.
    pub(in crate::server) fn keep_client(&self, client: &Client) {
        if client.introduction.at.is_enclosure {
            return;
        }
        let since = SystemTime::now().checked_sub(client.since.elapsed());
        let since = since.and_then(|since| since.duration_since(SystemTime::UNIX_EPOCH).ok());
        let words = keeper::Client {
            client: client.id.0,
            function: client.introduction.function.clone(),
            program: client.introduction.program.clone(),
            pid: client.pid,
            gpu: u32::try_from(client.introduction.gpu()).unwrap_or(u32::MAX),
            arena_address: client.addresses.arena.address,
            arena_bytes: client.addresses.arena.bytes,
            host_address: client.addresses.host.address,
            host_bytes: client.addresses.host.bytes,
            since_ms: since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            is_serving: client.is_serving(),
            has_memory: client.has_memory,
            home: client.home,
        };
        self.keeper.keep(&numbered(CLIENT, client.id.0), &words, &[]);
    }

    /// Clients that go together belong to a GPU, all of them or, if the next server does not hear of this, none.
    pub(in crate::server) fn keep_party(&self, number: u64, clients: &[u64], gpu: usize) {
        let gpu = u32::try_from(gpu).unwrap_or(u32::MAX);
        self.keeper.keep(
            &numbered(PARTY, number),
            &keeper::Party { number, clients: clients.to_vec(), gpu },
            &[],
        );
    }

    /// What is kept of each client says where it belongs.
    pub(in crate::server) fn forget_party(&self, number: u64) {
        self.keeper.forget(&numbered(PARTY, number));
    }

    /// A client is about to be handed its memory.
    pub(in crate::server) fn keep_memory(
        &self,
        id: ClientId,
        memory: &ClientMemory,
        lifeline: BorrowedFd<'_>,
        process: Option<BorrowedFd<'_>>,
    ) {
        let its = [memory.channel_file.as_fd(), memory.host_file.as_fd(), lifeline];
        let its: Vec<_> = its.into_iter().chain(process).collect();
        let mut clients = self.clients();
        let Some(client) = clients.get_mut(id).filter(|client| !client.introduction.at.is_enclosure) else {
            return;
        };
        self.keeper.keep(&numbered(MEMORY, id.0), &(), &its);
        self.keep_client(client);
    }

    /// A client has been handed its memory.
    pub(in crate::server) fn note_handed(&self, id: ClientId) {
        if let Some(client) = self.clients().get_mut(id) {
            client.has_memory = true;
            self.keep_client(client);
        }
    }

    /// Nothing is left of a client.
    pub(in crate::server) fn forget_client(&self, id: ClientId) {
        [MEMORY, STATE, CLIENT].into_iter().for_each(|kind| self.keeper.forget(&numbered(kind, id.0)));
    }

    /// Goes on with the clients of the server before.
    pub(in crate::server) fn resume(self: &Arc<Self>, Legacies { clients, parties, last_id }: Legacies) {
        self.clients().go_on_from(last_id);
        let mut gone = Vec::new();
        for Legacy { words, memory } in clients {
            let (id, gpu) = (ClientId(words.client), words.gpu as usize);
            let keeper::Client { function, program, .. } = words.clone();
            let function: Arc<str> = function.into();
            let at = self.gpus()[gpu].shared().clone();
            let who = Introduction { function: (*function).to_owned(), program, at };
            let its = memory.as_ref().map(|its| its.memory.clone());
            self.clients().inherit(who, &words, its);
            let Some(LegacyMemory { memory, lifeline, process }) = memory else {
                gone.push(id);
                continue;
            };
            self.events().tell(What::ClientAttached { client: id.0, function: function.clone(), gpu });
            if let Some(home) = words.home {
                self.events().tell(What::ClientHome { client: id.0, home });
                self.events().tell(What::SessionBegan { client: id.0, is_shut: false });
            }
            let log = FunctionLog::new(function.clone());
            let entrance = Entrance { node: Arc::downgrade(self), function, log };
            let handed = words.has_memory;
            self.acceptor.spawn(lifeline::resume(lifeline, process, id, memory, handed, entrance));
        }
        for party in parties {
            for &id in &party.clients {
                if let Some(client) = self.clients().get_mut(ClientId(id)) {
                    self.keep_client(client);
                }
            }
            self.forget_party(party.number);
        }
        let known: BTreeSet<ClientId> = self.clients().iter().map(|client| client.id).collect();
        self.realms.common().keep_alone(|client| known.contains(&client));
        for id in gone {
            let node = self.clone();
            tokio::spawn(async move { node.part(id).await });
        }
    }
}
