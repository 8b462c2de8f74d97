//! Who the clients are: slots, tokens and what each client is doing. Pure bookkeeping, no sockets, no clock of its own.
//!
//! ```text
//! admit ──▶ Admitted ──take(token)──▶ Joining ──serve──▶ Serving ──leave──▶ Leaving ──release──▶ (slot free)
//!              └─ two seconds pass ──▶ (slot free)
//! ```
//!
//! A slot is free again only when its last worker has said that it holds nothing of it any more.

use crate::server::served::ClientMemory;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use torpor_proto::control::worker;
use torpor_proto::error::CudaError;
use torpor_proto::layout;

/// How long a token is good for.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(2);

/// Clients of one function that said hello and did not come for their memory yet, at most: a function that only
/// says hello must not take every slot of the node.
pub const MAX_ADMITTED_PER_FUNCTION: usize = 64;

/// What a client takes its memory with.
pub type Token = [u8; 16];

/// Identifies a client for as long as the server lives; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// Why nobody can be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// All slots are taken.
    #[error(
        "all {} client slots of this node are taken; wait until a client ends (see `torpor ps`)",
        layout::SLOTS
    )]
    Slots,
    /// Too many of this function are coming already.
    #[error(
        "{MAX_ADMITTED_PER_FUNCTION} clients of this function are connecting already; try again in two seconds"
    )]
    Admissions,
}

/// What is known of a client from the start.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// Its function: the directory through which it came.
    pub function: String,
    /// What it says its program is.
    pub program: String,
    /// Index into the server's GPUs: where it is served. The only place that knows.
    pub gpu: usize,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    /// Its identity.
    pub id: ClientId,
    /// Its addresses.
    pub slot: u32,
    /// Who it says it is.
    pub introduction: Introduction,
    /// Its process, as this server's kernel names it; 0 if it does not.
    pub pid: u32,
    /// Since when it has been there.
    pub since: Instant,
    /// What its worker was told last of its function's settings.
    pub told: worker::Settings,
    /// The GPU that it is being moved to.
    pub moving_to: Option<usize>,
    /// Since when it has been where it is, if it was moved there.
    pub moved: Option<Instant>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Admitted { token: Token, until: Instant },
    Joining,
    Serving(Arc<ClientMemory>),
    Leaving,
}

impl Client {
    /// Whether its worker serves it, or did until it failed.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        matches!(self.phase, Phase::Serving(_))
    }

    /// Its memory, while it is served.
    #[must_use]
    pub fn memory(&self) -> Option<&Arc<ClientMemory>> {
        match &self.phase {
            Phase::Serving(memory) => Some(memory),
            _ => None,
        }
    }

    /// Whether every later call of it fails.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        matches!(&self.phase, Phase::Serving(memory) if memory.channel.sticky_error().is_some())
    }
}

/// All clients of the node.
#[derive(Debug)]
pub struct ClientTable {
    clients: BTreeMap<ClientId, Client>,
    /// The slot that has been free longest comes first, so that a stale address stays a stale address for long.
    free_slots: VecDeque<u32>,
    last_id: u64,
}

impl Default for ClientTable {
    fn default() -> Self {
        Self { clients: BTreeMap::new(), free_slots: (0..layout::SLOTS).collect(), last_id: 0 }
    }
}

impl ClientTable {
    /// Gives a client an identity and a slot, until it takes its memory with `token` or the token's time is over.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn admit(
        &mut self,
        who: Introduction,
        token: Token,
        now: Instant,
    ) -> Result<(ClientId, u32), NoRoom> {
        self.expire(now);
        let waiting = self.clients.values().filter(|client| {
            matches!(client.phase, Phase::Admitted { .. }) && client.introduction.function == who.function
        });
        if waiting.count() >= MAX_ADMITTED_PER_FUNCTION {
            return Err(NoRoom::Admissions);
        }
        let slot = self.free_slots.pop_front().ok_or(NoRoom::Slots)?;
        self.last_id += 1;
        let id = ClientId(self.last_id);
        let phase = Phase::Admitted { token, until: now + TOKEN_LIFETIME };
        let told = worker::Settings::default();
        let client = Client {
            id,
            slot,
            introduction: who,
            pid: 0,
            since: now,
            told,
            moving_to: None,
            moved: None,
            phase,
        };
        self.clients.insert(id, client);
        Ok((id, slot))
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

    /// It is gone, but its worker may still hold something of it. Returns the GPU it was served by.
    pub fn leave(&mut self, id: ClientId) -> Option<usize> {
        let client = self.clients.get_mut(&id)?;
        client.phase = Phase::Leaving;
        Some(client.introduction.gpu)
    }

    /// Nobody holds anything of it any more.
    pub fn release(&mut self, id: ClientId) {
        if let Some(client) = self.clients.remove(&id) {
            self.free_slots.push_back(client.slot);
        }
    }

    /// All clients, by identity.
    pub fn iter(&self) -> impl Iterator<Item = &Client> {
        self.clients.values()
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
        let free_slots = &mut self.free_slots;
        self.clients.retain(|_, client| {
            let expired = matches!(client.phase, Phase::Admitted { until, .. } if until <= now);
            if expired {
                free_slots.push_back(client.slot);
            }
            !expired
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn somebody(function: &str) -> Introduction {
        Introduction { function: function.to_owned(), program: "python".to_owned(), gpu: 0 }
    }

    #[test]
    fn a_token_is_good_once_in_time_and_for_its_function_alone() {
        let (mut table, start) = (ClientTable::default(), Instant::now());
        let (id, _) = table.admit(somebody("f"), [1; 16], start).unwrap();
        assert!(table.take("g", &[1; 16], 7, start).is_none());
        assert!(table.take("f", &[2; 16], 7, start).is_none());
        let taken = table.take("f", &[1; 16], 7, start).unwrap();
        assert_eq!((taken.id, taken.pid), (id, 7));
        assert!(table.take("f", &[1; 16], 7, start).is_none());
        table.admit(somebody("f"), [3; 16], start).unwrap();
        assert!(table.take("f", &[3; 16], 7, start + TOKEN_LIFETIME).is_none());
    }

    #[test]
    fn one_function_cannot_take_every_slot_by_saying_hello() {
        let (mut table, start) = (ClientTable::default(), Instant::now());
        for _ in 0..MAX_ADMITTED_PER_FUNCTION {
            table.admit(somebody("loud"), [0; 16], start).unwrap();
        }
        assert_eq!(table.admit(somebody("loud"), [0; 16], start), Err(NoRoom::Admissions));
        table.admit(somebody("quiet"), [0; 16], start).unwrap();
        table.admit(somebody("loud"), [0; 16], start + TOKEN_LIFETIME).unwrap();
    }

    #[test]
    fn a_slot_comes_back_only_when_released() {
        let (mut table, now) = (ClientTable::default(), Instant::now());
        let mut ids = Vec::new();
        for slot in 0..layout::SLOTS {
            let (id, given) = table.admit(somebody("f"), [0; 16], now).unwrap();
            assert_eq!(given, slot);
            table.take("f", &[0; 16], 1, now).unwrap();
            ids.push(id);
        }
        assert_eq!(table.admit(somebody("f"), [0; 16], now), Err(NoRoom::Slots));
        assert_eq!(table.leave(ids[9]), Some(0));
        assert_eq!(table.admit(somebody("f"), [0; 16], now), Err(NoRoom::Slots));
        table.release(ids[9]);
        assert_eq!(table.admit(somebody("f"), [0; 16], now).unwrap().1, 9);
    }

    proptest! {
        #[test]
        fn no_two_clients_share_a_slot(steps in prop::collection::vec((0..4_u8, 0..400_u64, 0..3_u64), 0..900)) {
            let (mut table, start) = (ClientTable::default(), Instant::now());
            let mut seconds = 0;
            for (step, number, elapsed) in steps {
                seconds += elapsed;
                let now = start + Duration::from_secs(seconds);
                match step {
                    0 | 1 => {
                        let mut token = [0; 16];
                        token[..8].copy_from_slice(&number.to_le_bytes());
                        let _ = table.admit(somebody("f"), token, now);
                        if step == 1 {
                            let _ = table.take("f", &token, 1, now);
                        }
                    }
                    2 => drop(table.leave(ClientId(number))),
                    _ => table.release(ClientId(number)),
                }
                let slots: HashSet<u32> = table.iter().map(|client| client.slot).collect();
                prop_assert_eq!(slots.len(), table.iter().count());
                prop_assert_eq!(slots.len() + table.free_slots.len(), layout::SLOTS as usize);
            }
        }
    }
}
