//! Who may use its slots: taking, giving and revoking leases.

use super::{ChunkId, Index, Lease, Location, Misuse, Place, Work};
use crate::server::clients::ClientId;

impl Index {
    /// The client will want a lease: its chunks stay in their slots from now on.
    ///
    /// # Errors
    /// [`Misuse::UnknownClient`].
    pub fn want_lease(&mut self, client: ClientId) -> Result<(), Misuse> {
        let its = self.clients.get_mut(&client).ok_or(Misuse::UnknownClient)?;
        if !its.lease.is_held() {
            its.lease = Lease::Wanted;
        }
        Ok(())
    }

    /// It will not, after all.
    pub fn drop_wish(&mut self, client: ClientId) {
        if let Some(its) = self.clients.get_mut(&client)
            && its.lease == Lease::Wanted
        {
            its.lease = Lease::None;
        }
    }

    /// Chunks of a client that are in files and that nobody is reading yet.
    #[must_use]
    pub fn missing(&self, client: ClientId) -> Vec<ChunkId> {
        let Some(its) = self.clients.get(&client) else { return Vec::new() };
        let in_file = |id: &&ChunkId| {
            let chunk = self.chunks.get(id);
            chunk.is_some_and(|chunk| matches!(chunk.location, Location::File(_)) && chunk.work.is_none())
        };
        its.chunks.iter().filter(in_file).copied().collect()
    }

    /// Gives the client a lease, if all of its chunks are in slots: their places, in the order of their numbers.
    ///
    /// # Errors
    /// [`Misuse::UnknownClient`].
    pub fn grant(&mut self, client: ClientId) -> Result<Option<Vec<Place>>, Misuse> {
        let its = self.clients.get(&client).ok_or(Misuse::UnknownClient)?;
        let place = |&chunk: &ChunkId| self.slot_of(chunk).map(|slot| Place { chunk, slot });
        let Some(places) = its.chunks.iter().map(place).collect::<Option<Vec<_>>>() else { return Ok(None) };
        for place in &places {
            // The client may write from now on, so what is being written to a file may be neither old nor new.
            if let Some(chunk) = self.chunks.get_mut(&place.chunk)
                && let Some(Work::Spilling { void }) = &mut chunk.work
            {
                *void = true;
            }
        }
        self.touch(client);
        if let Some(its) = self.clients.get_mut(&client) {
            its.lease = Lease::Held;
        }
        Ok(Some(places))
    }

    /// The client that holds a lease, refers to something, and has not used the store for longest, among those that
    /// `may` give it back. It is not named again until it holds a new one.
    pub fn revoke_next(&mut self, may: impl Fn(ClientId) -> bool) -> Option<ClientId> {
        let candidates = self.clients.iter_mut();
        let candidates = candidates
            .filter(|(id, client)| client.lease == Lease::Held && !client.chunks.is_empty() && may(**id));
        let (&id, client) = candidates.min_by_key(|(_, client)| client.last_used)?;
        client.lease = Lease::Revoking;
        Some(id)
    }

    /// Whether any client among those that `may` has been asked for its lease and has not given it back, or is about to have
    /// done with what it reserved without one.
    #[must_use]
    pub fn awaits_revocation(&self, may: impl Fn(ClientId) -> bool) -> bool {
        let awaited = |lease| matches!(lease, Lease::Revoking | Lease::Writing(_));
        self.clients.iter().any(|(&id, client)| awaited(client.lease) && may(id))
    }

    /// Takes the lease of the client that has not used the store for longest, among those that `waits` and use no slot
    /// meanwhile. `None` if none of them holds one on anything.
    pub fn suspend_next(&mut self, waits: impl Fn(ClientId) -> bool) -> Option<ClientId> {
        let candidates = self.clients.iter_mut();
        let candidates = candidates
            .filter(|(id, client)| client.lease.is_held() && !client.chunks.is_empty() && waits(**id));
        let (&id, client) = candidates.min_by_key(|(_, client)| client.last_used)?;
        client.lease = Lease::None;
        Some(id)
    }

    /// Whether the client may use all of its slots.
    #[must_use]
    pub fn is_leased(&self, client: ClientId) -> bool {
        self.clients.get(&client).is_some_and(|its| its.lease.is_held())
    }

    /// The client does not use its slots any more.
    pub fn revoked(&mut self, client: ClientId) {
        if let Some(its) = self.clients.get_mut(&client) {
            its.lease = Lease::None;
        }
    }
}
