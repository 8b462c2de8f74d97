//! What clients of one function have together, beyond their processes: memory ([`segment`]) and events ([`event`]). Where one of
//! them goes to another worker, all do ([`party`]).
//!
//! Whoever exports something is given a secret for it, and whoever knows the secret may import it, if it is a client of the
//! same function. The secret is as long as two words of the system's randomness, and the worker alone makes it, so a guess is
//! as good as any other.

pub(crate) mod event;
pub(crate) mod party;
pub(crate) mod segment;
pub(crate) mod tenancy;

use crate::worker::gpu::ipc::event::SharedEvent;
use crate::worker::gpu::ipc::party::Parties;
use crate::worker::gpu::ipc::segment::{SharedSegment, Usage};
use crate::worker::sync::lock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use torpor_proto::control::worker::ClientUsage;
use torpor_proto::error::CudaError;

/// What something is imported with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Secret(pub(crate) [u64; 2]);

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// `CUDA_ERROR_OPERATING_SYSTEM` if the system has no randomness.
    pub(crate) fn new() -> Result<Self, CudaError> {
        let mut bytes = [0; 16];
        let made = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        made.ok().filter(|&made| made == bytes.len()).ok_or(CudaError::OPERATING_SYSTEM)?;
        Ok(Self(bytemuck::cast(bytes)))
    }
}

/// Everything that clients of this worker have exported.
#[derive(Debug, Default)]
pub(crate) struct Ipc {
    /// Memory.
    pub(crate) segments: Exports<SharedSegment>,
    /// Events.
    pub(crate) events: Exports<SharedEvent>,
    /// Who leaves with whom.
    pub(crate) parties: Parties,
}

impl Ipc {
    /// Whether nobody but these has any of what they have.
    pub(crate) fn is_all_of(&self, party: &[u64]) -> bool {
        let members = |of: Vec<Vec<u64>>| of.into_iter().all(|members| is_within(&members, party));
        let segments = self.segments.all().iter().map(|segment| segment.members()).collect();
        let events = self.events.all().iter().map(|event| event.members()).collect();
        members(segments) && members(events)
    }

    /// Nobody imports anything of these clients of a function from now on: all that they have together goes with them to another
    /// worker. False if somebody else has some of it, or memory of it is on the GPU: then all is as before.
    pub(crate) fn depart(&self, party: &[u64], function: &str) -> bool {
        let segments: Vec<_> =
            self.segments.all().into_iter().filter(|segment| is_of(&segment.members(), party)).collect();
        let events: Vec<_> =
            self.events.all().into_iter().filter(|event| is_of(&event.members(), party)).collect();
        events.iter().for_each(|event| self.events.remove(event.secret()));
        // Each of them: who joins one meanwhile is seen by this, or told that it departs.
        let depart = segments.iter().filter(|segment| segment.depart(party)).count() == segments.len();
        // Who has found an event, and is about to have it, holds it by now.
        let is_theirs = |event: &&Arc<SharedEvent>| {
            let members = event.members();
            is_within(&members, party) && Arc::strong_count(event) == members.len() + 1
        };
        let departs = depart && events.iter().filter(is_theirs).count() == events.len();
        if !departs {
            segments.iter().for_each(|segment| segment.stay());
            events.iter().for_each(|event| self.events.add(event.secret(), function, event));
        }
        departs
    }

    /// Adds to what each client uses what counts as its of that which several have.
    pub(crate) fn add_usage(&self, clients: &mut [ClientUsage]) {
        let places: HashMap<u64, usize> =
            clients.iter().enumerate().map(|(at, usage)| (usage.client, at)).collect();
        let mut change = |client: Option<u64>, change: &dyn Fn(&mut ClientUsage)| {
            if let Some(&at) = client.and_then(|client| places.get(&client)) {
                change(&mut clients[at]);
            }
        };
        for segment in self.segments.all() {
            let Usage { bytes, stored_bytes, founder, holder, payer, sharers } = segment.usage();
            change(founder, &|its| its.allocated_bytes = its.allocated_bytes.saturating_sub(bytes));
            change(holder, &|its| its.memory_bytes += bytes);
            change(payer, &|its| {
                its.allocated_bytes += bytes;
                its.host_bytes += stored_bytes;
            });
            sharers.into_iter().for_each(|sharer| change(Some(sharer), &|its| its.shares = true));
        }
        let members = self.events.all().into_iter().map(|event| event.members());
        let sharers = members.filter(|members| members.len() > 1).flatten();
        sharers.for_each(|sharer| change(Some(sharer), &|its| its.shares = true));
    }
}

/// Whether any of the members of something is of a party.
fn is_of(members: &[u64], party: &[u64]) -> bool {
    members.iter().any(|member| party.contains(member))
}

/// Whether something is of nobody in a party, or of nobody else.
fn is_within(members: &[u64], party: &[u64]) -> bool {
    !is_of(members, party) || members.iter().all(|member| party.contains(member))
}

/// Exported things of one kind, as long as somebody has them.
#[derive(Debug)]
pub(crate) struct Exports<T> {
    known: Mutex<Known<T>>,
}

#[derive(Debug)]
struct Known<T> {
    by_secret: HashMap<Secret, Export<T>>,
    /// With so many, those that nobody has any more are forgotten.
    purge_at: usize,
}

impl<T> Known<T> {
    fn insert(&mut self, secret: Secret, function: &str, thing: &Arc<T>) {
        if self.by_secret.len() >= self.purge_at {
            self.by_secret.retain(|_, export| export.thing.strong_count() > 0);
            self.purge_at = FEW.max(2 * self.by_secret.len());
        }
        let export = Export { function: function.to_owned(), thing: Arc::downgrade(thing) };
        self.by_secret.insert(secret, export);
    }
}

#[derive(Debug)]
struct Export<T> {
    function: String,
    thing: Weak<T>,
}

/// Exports that are kept before the first purge.
const FEW: usize = 64;

impl<T> Default for Exports<T> {
    fn default() -> Self {
        Self { known: Mutex::new(Known { by_secret: HashMap::new(), purge_at: FEW }) }
    }
}

impl<T> Exports<T> {
    /// Clients of the function may have it from now on.
    pub(crate) fn add(&self, secret: Secret, function: &str, thing: &Arc<T>) {
        lock(&self.known).insert(secret, function, thing);
    }

    /// As [`Self::add`], unless there is one with this secret that somebody has. Returns the one that there is.
    pub(crate) fn find_or_add(&self, secret: Secret, function: &str, thing: &Arc<T>) -> Arc<T> {
        let mut known = lock(&self.known);
        let there = known.by_secret.get(&secret).filter(|export| export.function == function);
        if let Some(there) = there.and_then(|export| export.thing.upgrade()) {
            return there;
        }
        known.insert(secret, function, thing);
        thing.clone()
    }

    /// Nobody may have it from now on who does not already.
    pub(crate) fn remove(&self, secret: Secret) {
        lock(&self.known).by_secret.remove(&secret);
    }

    /// All that somebody has.
    fn all(&self) -> Vec<Arc<T>> {
        lock(&self.known).by_secret.values().filter_map(|export| export.thing.upgrade()).collect()
    }

    /// What a client of the function may have who knows this secret.
    pub(crate) fn find(&self, secret: Secret, function: &str) -> Option<Arc<T>> {
        let known = lock(&self.known);
        let export = known.by_secret.get(&secret).filter(|export| export.function == function)?;
        export.thing.upgrade()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exported_is_found_by_its_function_while_somebody_has_it() {
        let exports = Exports::default();
        let (secret, thing) = (Secret::new().unwrap(), Arc::new(7));
        exports.add(secret, "f", &thing);
        assert_eq!(exports.find(secret, "f").as_deref(), Some(&7));
        assert_eq!(exports.find(secret, "g"), None);
        assert_eq!(exports.find(Secret([secret.0[0], !secret.0[1]]), "f"), None);
        exports.remove(secret);
        assert_eq!(exports.find(secret, "f"), None);
        exports.add(secret, "f", &thing);
        drop(thing);
        assert_eq!(exports.find(secret, "f"), None);
        for number in 0..10 * FEW {
            exports.add(Secret([number as u64, 0]), "f", &Arc::new(8));
        }
        assert!(lock(&exports.known).by_secret.len() <= FEW, "what is gone takes no room");
    }

    #[test]
    fn no_two_secrets_are_the_same() {
        assert_ne!(Secret::new().unwrap(), Secret::new().unwrap());
    }
}
