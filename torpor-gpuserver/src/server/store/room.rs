//! Finding slots: by waiting for growth, then by spilling, after asking idle clients for their leases.

use super::growth::Outlook;
use super::{Asked, BATCH, Owner, State, Store};
use crate::chunk::CHUNK_BYTES;
use crate::server::clients::ClientId;
use crate::server::size::ByteSize;
use crate::server::store::error::{Fill, StoreError};
use crate::server::store::index::{Place, SpillTicket};
use crate::server::store::spill::SpillFiles;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use torpor_proto::control::worker::{RevokeLease, to_worker};

/// How long a request waits for growth, or for leases to come back.
const PATIENCE: Duration = Duration::from_secs(30);

/// This part of the pool is for those that have to leave their GPUs, not for what is saved ahead of time.
const KEPT_PART: usize = 8;

/// How long sessions may take to say what some more chunks contain, of which equal ones become one.
const HASHING_PATIENCE: Duration = Duration::from_millis(500);

/// How long a client may take to give its lease back before the next one is asked too.
const REVOKE_STEP: Duration = Duration::from_millis(200);

/// What room is looked for for.
#[derive(Clone, Copy)]
enum Need {
    /// So many new chunks.
    New(usize),
    /// What of the client is in files: others may bring some of that meanwhile, by telling that they have the same.
    Back,
}

impl Need {
    fn slots(self, state: &State, client: ClientId) -> usize {
        match self {
            Self::New(count) => count,
            Self::Back => state.index.missing(client).len().min(BATCH),
        }
    }
}

/// A request that looks for room.
struct Search {
    client: ClientId,
    need: Need,
    deadline: Instant,
    /// When somebody was asked for its lease last.
    revoked_at: Option<Instant>,
    /// No other store of the pool has a slab to give.
    is_alone: bool,
    /// How many chunks nobody had identified, when these became fewer last.
    unidentified: Option<(usize, Instant)>,
}

impl Search {
    /// Whether chunks may still turn out to be equal, so that one of them has room for others.
    fn awaits_equals(&mut self, unidentified: usize, now: Instant) -> bool {
        match self.unidentified {
            _ if unidentified == 0 => false,
            Some((before, since)) if before <= unidentified => now < since + HASHING_PATIENCE,
            _ => {
                self.unidentified = Some((unidentified, now));
                true
            }
        }
    }
}

enum Step {
    Done,
    /// Slabs of other stores may be to be had.
    AskOthers,
    Spill(Arc<SpillFiles>, Vec<SpillTicket>),
    /// Look again when something has changed, or at this time.
    Wait(Instant),
    /// Look again at once.
    Again,
}

impl Store {
    /// Makes new chunks for a client. It may have lost its lease meanwhile, whatever comes of it.
    pub(super) async fn reserve(
        self: &Arc<Self>,
        client: ClientId,
        count: usize,
        asked: Asked,
    ) -> Result<Vec<Place>, StoreError> {
        self.note(client, |owner| owner.reserving += 1);
        let reserved = self.reserve_in_turn(client, count, asked).await;
        if reserved.is_err() {
            self.note(client, Owner::reserved);
        }
        reserved
    }

    /// As [`Self::reserve`], of what is free alone, of which a part stays free.
    pub(super) fn reserve_spare(
        self: &Arc<Self>,
        client: ClientId,
        count: usize,
        asked: Asked,
    ) -> Result<Vec<Place>, StoreError> {
        let mut state = self.state();
        let to_come = self.pool_slots().saturating_sub(state.index.total_slots());
        let kept = self.pool_slots() / KEPT_PART;
        let places = if state.index.free_slots() + to_come >= count.saturating_add(kept) {
            let misuse = state.misuse(client);
            state.index.touch(client);
            let places = state.index.reserve(client, count, asked).map_err(misuse)?;
            state.note_reserved(client, places.as_deref());
            places
        } else {
            None
        };
        // What is not there yet is there when it is asked for again.
        state.wanted = count;
        let outlook = self.advance(&mut state);
        state.wanted = 0;
        if let Some(places) = places {
            return Ok(places);
        }
        let (function, fill) = (state.function(client), self.fill(&state, count));
        drop(state);
        if outlook == Outlook::Full {
            self.pool.ask_others(self);
        }
        Err(StoreError::NothingSpare { function, fill })
    }

    async fn reserve_in_turn(
        self: &Arc<Self>,
        client: ClientId,
        count: usize,
        asked: Asked,
    ) -> Result<Vec<Place>, StoreError> {
        let _turn = self.turn(client).await?;
        loop {
            {
                let mut state = self.state();
                let misuse = state.misuse(client);
                state.index.touch(client);
                let held = state.index.chunks_of(client);
                let reserved = state.index.reserve(client, count, asked).map_err(misuse)?;
                state.note_reserved(client, reserved.as_deref());
                self.advance(&mut state);
                if let Some(places) = reserved {
                    // From now on it uses what it has reserved.
                    state.clients.get_mut(&client).into_iter().for_each(Owner::reserved);
                    return Ok(places);
                }
                if count.saturating_add(held) > self.pool_slots() {
                    let held = ByteSize(held as u64 * CHUNK_BYTES);
                    let (function, fill) = (state.function(client), self.fill(&state, count));
                    return Err(StoreError::TooLarge { function, held, fill });
                }
            }
            self.make_room(client, Need::New(count)).await?;
        }
    }

    /// Gives a client a lease, after bringing its chunks back.
    pub(super) async fn lease(self: &Arc<Self>, client: ClientId) -> Result<Vec<Place>, StoreError> {
        if let Some(places) = self.grant(client)? {
            return Ok(places);
        }
        let _turn = self.turn(client).await?;
        {
            let mut state = self.state();
            let misuse = state.misuse(client);
            state.index.want_lease(client).map_err(misuse)?;
        }
        let result = self.bring_back(client).await;
        if result.is_err() {
            self.state().index.drop_wish(client);
        }
        result
    }

    /// Waits until it is this client's turn to look for room. While it waits, it cannot give a lease back.
    async fn turn(&self, client: ClientId) -> Result<tokio::sync::MutexGuard<'_, ()>, StoreError> {
        let mut changes = self.changed.subscribe();
        self.note(client, |owner| owner.queued += 1);
        let room = self.room.lock();
        tokio::pin!(room);
        let turn = loop {
            self.state().check_there(client)?;
            tokio::select! {
                turn = &mut room => break turn,
                // The sender is this store's own.
                _ = changes.changed() => {}
            }
        };
        self.note(client, |owner| owner.queued = owner.queued.saturating_sub(1));
        Ok(turn)
    }

    fn note(&self, client: ClientId, change: impl FnOnce(&mut Owner)) {
        if let Some(owner) = self.state().clients.get_mut(&client) {
            change(owner);
        }
        self.wake();
    }

    fn grant(&self, client: ClientId) -> Result<Option<Vec<Place>>, StoreError> {
        let mut state = self.state();
        let misuse = state.misuse(client);
        state.index.grant(client).map_err(misuse)
    }

    async fn bring_back(self: &Arc<Self>, client: ClientId) -> Result<Vec<Place>, StoreError> {
        loop {
            let mut changes = self.changed.subscribe();
            if let Some(places) = self.grant(client)? {
                return Ok(places);
            }
            if self.state().index.missing(client).is_empty() {
                // Whoever is bringing them back tells, so this needs no deadline: a restore is the server's own work, which no
                // worker's death and no client's end cuts short, and it gives every chunk back with what became of it. One
                // that failed is missing again, and ours to bring. (As it is, restores end within the turn in which they
                // begin, and this turn is ours. A file system that never answers holds up the turns; whoever waits for one
                // can still be ended.)
                let _ = changes.changed().await;
                continue;
            }
            self.make_room(client, Need::Back).await?;
            let tickets: Vec<_> = {
                let mut state = self.state();
                let missing = state.index.missing(client).into_iter().take(BATCH);
                missing.map_while(|chunk| state.index.begin_restore(chunk)).collect()
            };
            self.restore(client, tickets).await?;
        }
    }

    /// Waits until as many slots are free as are needed. Only the holder of `room` may call it. Who brings chunks back brings as
    /// many as it spills, so it may exceed the spill limit meanwhile.
    async fn make_room(self: &Arc<Self>, client: ClientId, need: Need) -> Result<(), StoreError> {
        let deadline = Instant::now() + PATIENCE;
        let mut search =
            Search { client, need, deadline, revoked_at: None, is_alone: false, unidentified: None };
        let mut wanting = None;
        loop {
            let mut changes = self.changed.subscribe();
            let (slots, step) = {
                let mut state = self.state();
                // Else one that is gone would take leases from others, and fill the disk, for nothing.
                state.check_there(client)?;
                let slots = need.slots(&state, client);
                state.wanted = slots;
                let step = self.step(&mut state, &mut search, slots);
                state.wanted = 0;
                (slots, step?)
            };
            search.is_alone = false;
            match step {
                Step::Done => return Ok(()),
                Step::AskOthers if self.pool.ask_others(self) => {
                    wanting.get_or_insert_with(|| self.pool.want());
                    drop(timeout_at(deadline, changes.changed()).await);
                }
                Step::AskOthers => search.is_alone = true,
                Step::Spill(files, tickets) => self.spill(client, slots, &files, tickets).await?,
                Step::Wait(until) => drop(timeout_at(until, changes.changed()).await),
                Step::Again => {}
            }
        }
    }

    fn step(
        self: &Arc<Self>,
        state: &mut State,
        search: &mut Search,
        slots: usize,
    ) -> Result<Step, StoreError> {
        let Search { client, need, deadline, .. } = *search;
        let (function, now) = (state.function(client), Instant::now());
        if !state.clients.contains_key(&client) {
            return Err(state.misuse(client)(super::index::Misuse::UnknownClient));
        }
        let outlook = self.advance(state);
        let missing = slots.saturating_sub(state.index.free_slots());
        if missing == 0 {
            return Ok(Step::Done);
        }
        let fill = self.fill(state, slots);
        let blocked = match outlook {
            Outlook::Good if now < deadline => return Ok(Step::Wait(deadline)),
            Outlook::Good => Some(format!("that takes longer than {} seconds", PATIENCE.as_secs())),
            Outlook::Blocked(reason) => Some(reason),
            Outlook::Full if !search.is_alone && now < deadline => return Ok(Step::AskOthers),
            Outlook::Full => None,
        };
        let Some(files) = &self.files else {
            if blocked.is_none() && now < deadline && search.awaits_equals(state.index.unidentified(), now) {
                return Ok(Step::Wait(now + HASHING_PATIENCE));
            }
            return Err(match blocked {
                Some(reason) => StoreError::Growth { function, fill, reason },
                None => StoreError::NoSpilling { function, fill },
            });
        };
        let spilled = state.index.spilled();
        let is_exchange = matches!(need, Need::Back);
        if !is_exchange && spilled.saturating_add(missing) > self.spill_limit_chunks {
            let bytes = |chunks: usize| ByteSize((chunks as u64).saturating_mul(CHUNK_BYTES));
            let (spilled, limit) = (bytes(spilled), bytes(self.spill_limit_chunks));
            return Err(StoreError::SpillFull { function, fill, spilled, limit });
        }
        let tickets = state.index.begin_spills(missing.min(BATCH));
        if !tickets.is_empty() {
            return Ok(Step::Spill(files.clone(), tickets));
        }
        // Everything is leased. Those that wait for this request to be over cannot give their leases back before, and need
        // not be asked if they use no slot meanwhile.
        let State { index, clients, workers, .. } = state;
        let may = |other| other != client && clients.get(&other).is_none_or(|owner| owner.queued == 0);
        let waits = |other| clients.get(&other).is_some_and(|owner| owner.reserving > 0);
        if now >= deadline {
            return Err(StoreError::Busy { function, fill });
        }
        let next_at = search.revoked_at.map_or(now, |at| at + REVOKE_STEP);
        if now >= next_at || !index.awaits_revocation(may) {
            match index.revoke_next(may) {
                Some(chosen) => {
                    search.revoked_at = Some(now);
                    match clients.get(&chosen).and_then(|owner| owner.worker) {
                        Some(worker) => {
                            workers
                                .tell(worker, to_worker::Body::RevokeLease(RevokeLease { client: chosen.0 }));
                        }
                        // No session has ever used it.
                        None => index.revoked(chosen, None),
                    }
                }
                // Somebody else asked already.
                None if search.revoked_at.is_none() && index.awaits_revocation(may) => {
                    search.revoked_at = Some(now)
                }
                None if index.suspend_next(waits).is_some() => return Ok(Step::Again),
                None if !index.awaits_revocation(may) => return Err(StoreError::Busy { function, fill }),
                None => return Ok(Step::Wait(deadline)),
            }
        }
        Ok(Step::Wait((now + REVOKE_STEP).min(deadline)))
    }

    pub(super) fn fill(&self, state: &State, slots: usize) -> Fill {
        let used = state.index.total_slots() - state.index.free_slots();
        let bytes = |slots: usize| ByteSize((slots as u64).saturating_mul(CHUNK_BYTES));
        Fill { needed: bytes(slots), used: bytes(used), pool: bytes(self.pool_slots()) }
    }
}
