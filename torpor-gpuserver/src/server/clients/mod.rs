//! Who the clients are: addresses, tokens and what each client is doing. Pure bookkeeping, no sockets, no clock of its own.
//!
//! ```text
//! admit ──▶ Admitted ──take(token)──▶ Joining ──serve──▶ Serving ──leave──▶ Leaving ──release──▶ (addresses free)
//!              └─ two seconds pass ──▶ (addresses free)
//! ```
//!
//! Addresses are free again only when the client's last worker has said that it holds nothing of it any more.

pub(crate) mod addresses;
mod client;

pub use client::{Client, Introduction};

use crate::policy::event::Rules;
use crate::server::clients::addresses::{AddressPlan, Addresses, Demand};
use crate::server::clients::client::Phase;
use crate::server::workers::executor::Executor;
use crate::server::workers::order::ClientMemory;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use torpor_proto::control::{keeper, worker};
use torpor_proto::error::CudaError;
use torpor_proto::layout::{AddressRange, MAX_CLIENTS};

/// How long a token is good for.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(2);

/// Clients of one function that said hello and did not come for their memory yet, at most: a function that only
/// says hello must not take every place of the node.
pub const MAX_ADMITTED_PER_FUNCTION: usize = 64;

/// What a client takes its memory with.
pub type Token = [u8; 16];

/// Identifies a client for as long as the server, and those after it, live; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// Why nobody can be admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Its function has as many as it may.
    #[error(
        "function {function} has {limit} clients, as many as max_clients in [functions.{function}] or [defaults] of the \
         settings file says; end one (see `torpor ps`) or raise that"
    )]
    Function {
        /// Which.
        function: String,
        /// How many it may have.
        limit: u32,
    },
    /// All places are taken.
    #[error(
        "this node has {limit} clients, as many as it may (max_clients in [scheduler] of the settings file, {MAX_CLIENTS} at \
         most); end one (see `torpor ps`) or raise that"
    )]
    Places {
        /// How many it may have.
        limit: u32,
    },
    /// The addresses that are left are too few for its limit.
    #[error(
        "this node's addresses are taken by its clients (see `torpor ps`); wait until some end, or give functions a \
         smaller memory_limit"
    )]
    Addresses,
    /// Too many of this function are coming already.
    #[error(
        "{MAX_ADMITTED_PER_FUNCTION} clients of this function are connecting already; try again in two seconds"
    )]
    Admissions,
}

/// All clients of the node.
#[derive(Debug)]
pub struct ClientTable {
    clients: BTreeMap<ClientId, Client>,
    /// How many there may be.
    most: u32,
    plan: AddressPlan,
    last_id: u64,
}

impl ClientTable {
    /// None yet, and at most so many.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self { clients: BTreeMap::new(), most, plan: AddressPlan::default(), last_id: 0 }
    }

    /// Gives a client an identity and addresses (`arena`, `host`; where, `random` says), until it takes its memory with
    /// `token` or the token's time is over.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn admit(
        &mut self,
        who: Introduction,
        max_clients: Option<NonZeroU32>,
        (arena, host): (Demand, Demand),
        (token, random): (Token, [u64; 2]),
        now: Instant,
    ) -> Result<(ClientId, Addresses), NoRoom> {
        self.expire(now);
        let its = self.clients.values().filter(|client| client.introduction.function == who.function).count();
        if let Some(limit) = max_clients.filter(|limit| its >= limit.get() as usize) {
            return Err(NoRoom::Function { function: who.function, limit: limit.get() });
        }
        let waiting = self.clients.values().filter(|client| {
            matches!(client.phase, Phase::Admitted { .. }) && client.introduction.function == who.function
        });
        if waiting.count() >= MAX_ADMITTED_PER_FUNCTION {
            return Err(NoRoom::Admissions);
        }
        let present = u32::try_from(self.clients.len()).unwrap_or(u32::MAX);
        let full = NoRoom::Places { limit: self.most };
        let to_come = self.most.checked_sub(present.saturating_add(1)).ok_or(full)?;
        let addresses = self.plan.take(arena, host, to_come, random).ok_or(NoRoom::Addresses)?;
        self.last_id += 1;
        let id = ClientId(self.last_id);
        let phase = Phase::Admitted { token, until: now + TOKEN_LIFETIME };
        let told = worker::Settings::default();
        let client = Client {
            id,
            addresses,
            introduction: who,
            pid: 0,
            since: now,
            told,
            rules: Rules::default(),
            moving_to: None,
            generation: 0,
            home: None,
            has_memory: false,
            phase,
        };
        self.clients.insert(id, client);
        Ok((id, addresses))
    }

    /// A client of the server before, with its memory; one that has none is only to be let go of.
    pub fn inherit(&mut self, who: Introduction, words: &keeper::Client, memory: Option<Arc<ClientMemory>>) {
        let id = ClientId(words.client);
        let addresses = Addresses {
            arena: AddressRange { address: words.arena_address, bytes: words.arena_bytes },
            host: AddressRange { address: words.host_address, bytes: words.host_bytes },
        };
        self.plan.keep(addresses);
        let age = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_millis(words.since_ms));
        let now = Instant::now();
        let client = Client {
            id,
            addresses,
            introduction: who,
            pid: words.pid,
            since: now.checked_sub(age.unwrap_or_default()).unwrap_or(now),
            told: worker::Settings::default(),
            rules: Rules::default(),
            moving_to: None,
            generation: 0,
            home: words.home,
            has_memory: words.has_memory,
            phase: memory.map_or(Phase::Leaving, Phase::Serving),
        };
        self.clients.insert(id, client);
        self.last_id = self.last_id.max(words.client);
    }

    /// The greatest number that was given.
    #[must_use]
    pub fn last_id(&self) -> u64 {
        self.last_id
    }

    /// A server before has given numbers up to this.
    pub fn go_on_from(&mut self, last_id: u64) {
        self.last_id = self.last_id.max(last_id);
    }

    /// The client of `function` that this token belongs to. The token is used up.
    pub fn take(&mut self, function: &str, token: &Token, pid: u32, now: Instant) -> Option<&Client> {
        self.expire(now);
        let client = self.clients.values_mut().find(|client| {
            client.introduction.function == function
                && matches!(&client.phase, Phase::Admitted { token: theirs, .. } if theirs == token)
        })?;
        client.phase = Phase::Joining;
        client.pid = pid;
        Some(client)
    }

    /// A worker serves it from now on.
    pub fn serve(&mut self, id: ClientId, memory: Arc<ClientMemory>) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.phase = Phase::Serving(memory);
        }
    }

    /// Every client's later calls fail with `error`, unless they fail with another one already.
    pub fn fail(&self, error: CudaError) {
        for client in self.clients.values() {
            if let Phase::Serving(memory) = &client.phase {
                memory.channel.fail(error);
            }
        }
    }

    /// The GPU of one of a function's clients.
    #[must_use]
    pub fn gpu_of(&self, function: &str) -> Option<usize> {
        let mut theirs = self.clients.values().filter(|client| client.introduction.function == function);
        theirs.next().map(|client| client.introduction.gpu())
    }

    /// It is gone, but its worker may still hold something of it. Returns what it was served by.
    pub fn leave(&mut self, id: ClientId) -> Option<Arc<Executor>> {
        let client = self.clients.get_mut(&id)?;
        client.phase = Phase::Leaving;
        Some(client.introduction.at.clone())
    }

    /// Nobody holds anything of it any more.
    pub fn release(&mut self, id: ClientId) {
        if let Some(client) = self.clients.remove(&id) {
            self.plan.give_back(client.addresses);
        }
    }

    /// All clients, by identity.
    pub fn iter(&self) -> impl Iterator<Item = &Client> {
        self.clients.values()
    }

    /// A client.
    #[must_use]
    pub fn get(&self, id: ClientId) -> Option<&Client> {
        self.clients.get(&id)
    }

    /// A client, to note something about it.
    pub fn get_mut(&mut self, id: ClientId) -> Option<&mut Client> {
        self.clients.get_mut(&id)
    }

    /// All clients, to note something about them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Client> {
        self.clients.values_mut()
    }

    fn expire(&mut self, now: Instant) {
        let plan = &mut self.plan;
        self.clients.retain(|_, client| {
            let expired = matches!(client.phase, Phase::Admitted { until, .. } if until <= now);
            if expired {
                plan.give_back(client.addresses);
            }
            !expired
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn admit(
        table: &mut ClientTable,
        function: &str,
        token: Token,
        now: Instant,
    ) -> Result<(ClientId, Addresses), NoRoom> {
        let who = Introduction {
            function: function.to_owned(),
            program: "python".to_owned(),
            at: Executor::idle(),
        };
        let demands = (Demand::arena(8 << 30), Demand::host(1 << 30, 1 << 20));
        table.admit(who, None, demands, (token, [7, 7]), now)
    }

    #[test]
    fn a_token_is_good_once_in_time_and_for_its_function_alone() {
        let (mut table, start) = (ClientTable::new(MAX_CLIENTS), Instant::now());
        let (id, _) = admit(&mut table, "f", [1; 16], start).unwrap();
        assert!(table.take("g", &[1; 16], 7, start).is_none());
        assert!(table.take("f", &[2; 16], 7, start).is_none());
        let taken = table.take("f", &[1; 16], 7, start).unwrap();
        assert_eq!((taken.id, taken.pid), (id, 7));
        assert!(table.take("f", &[1; 16], 7, start).is_none());
        admit(&mut table, "f", [3; 16], start).unwrap();
        assert!(table.take("f", &[3; 16], 7, start + TOKEN_LIFETIME).is_none());
    }

    #[test]
    fn a_function_has_as_many_clients_as_it_may() {
        let (mut table, now) = (ClientTable::new(MAX_CLIENTS), Instant::now());
        let demands = || (Demand::arena(1 << 30), Demand::host(1 << 30, 1 << 20));
        let mut admit = |function: &str| {
            table
                .admit(
                    Introduction {
                        function: function.to_owned(),
                        program: String::new(),
                        at: Executor::idle(),
                    },
                    NonZeroU32::new(2),
                    demands(),
                    ([0; 16], [7, 7]),
                    now,
                )
                .map(|(id, _)| id)
        };
        let first = admit("f").unwrap();
        admit("f").unwrap();
        let refused = admit("f").unwrap_err();
        assert_eq!(refused, NoRoom::Function { function: "f".to_owned(), limit: 2 });
        assert!(refused.to_string().contains("max_clients in [functions.f]"), "{refused}");
        admit("g").unwrap();
        table.release(first);
        let f = Introduction { function: "f".to_owned(), program: String::new(), at: Executor::idle() };
        table.admit(f, NonZeroU32::new(2), demands(), ([0; 16], [7, 7]), now).unwrap();
    }

    #[test]
    fn one_function_cannot_take_every_place_by_saying_hello() {
        let (mut table, start) = (ClientTable::new(MAX_CLIENTS), Instant::now());
        for _ in 0..MAX_ADMITTED_PER_FUNCTION {
            admit(&mut table, "loud", [0; 16], start).unwrap();
        }
        assert_eq!(admit(&mut table, "loud", [0; 16], start), Err(NoRoom::Admissions));
        admit(&mut table, "quiet", [0; 16], start).unwrap();
        admit(&mut table, "loud", [0; 16], start + TOKEN_LIFETIME).unwrap();
    }

    #[test]
    fn a_place_comes_back_only_when_released() {
        let (mut table, now) = (ClientTable::new(MAX_CLIENTS), Instant::now());
        let mut ids = Vec::new();
        for _ in 0..MAX_CLIENTS {
            ids.push(admit(&mut table, "f", [0; 16], now).unwrap().0);
            table.take("f", &[0; 16], 1, now).unwrap();
        }
        assert_eq!(admit(&mut table, "f", [0; 16], now), Err(NoRoom::Places { limit: MAX_CLIENTS }));
        assert_eq!(table.leave(ids[9]).map(|at| at.gpu), Some(0));
        assert_eq!(admit(&mut table, "f", [0; 16], now), Err(NoRoom::Places { limit: MAX_CLIENTS }));
        table.release(ids[9]);
        admit(&mut table, "f", [0; 16], now).unwrap();
    }

    #[test]
    fn without_addresses_nobody_comes_until_somebody_leaves() {
        let (mut table, now) = (ClientTable::new(MAX_CLIENTS), Instant::now());
        let huge = Demand { least_bytes: 30 << 40, most_bytes: 30 << 40 };
        let admit = |table: &mut ClientTable| {
            let who = Introduction { function: "f".to_owned(), program: String::new(), at: Executor::idle() };
            table.admit(who, None, (huge, Demand::host(1 << 30, 1 << 20)), ([0; 16], [1, 1]), now)
        };
        let (first, addresses) = admit(&mut table).unwrap();
        assert_eq!(admit(&mut table), Err(NoRoom::Addresses));
        table.release(first);
        assert_eq!(admit(&mut table).unwrap().1, addresses);
    }

    proptest! {
        #[test]
        fn no_two_clients_share_an_address(steps in prop::collection::vec((0..4_u8, 0..400_u64, 0..3_u64), 0..300)) {
            let (mut table, start) = (ClientTable::new(MAX_CLIENTS), Instant::now());
            let mut seconds = 0;
            for (step, number, elapsed) in steps {
                seconds += elapsed;
                let now = start + Duration::from_secs(seconds);
                match step {
                    0 | 1 => {
                        let mut token = [0; 16];
                        token[..8].copy_from_slice(&number.to_le_bytes());
                        let _ = admit(&mut table, "f", token, now);
                        if step == 1 {
                            let _ = table.take("f", &token, 1, now);
                        }
                    }
                    2 => drop(table.leave(ClientId(number))),
                    _ => table.release(ClientId(number)),
                }
                for of in [|client: &Client| client.addresses.arena, |client: &Client| client.addresses.host] {
                    let mut ranges: Vec<_> = table.iter().map(of).collect();
                    ranges.sort_by_key(|range| range.address);
                    prop_assert!(ranges.windows(2).all(|pair| !pair[0].overlaps(pair[1])));
                }
            }
        }
    }
}
