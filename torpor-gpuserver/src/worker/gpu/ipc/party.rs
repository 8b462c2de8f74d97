//! Parties: clients that have memory or events together leave for another worker together, or not at all.
//!
//! ```text
//!    its work is done, its memory saved           all are there, and nobody else has any of what they have
//!   ────────────────────────────────────▶ arrived ─────────────────────────────────────────────────────────▶ goes
//!                                            │ another one cannot go, or does not come in time
//!                                            └──────────────────────────────────────────────────────────────▶ stays
//! ```
//!
//! One lock is held while that is decided, so it is decided for all of a party at once.

use crate::worker::sync::lock;
use std::collections::HashMap;
use std::sync::Mutex;
use torpor_proto::control::worker::Party;

/// What is decided of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing yet.
    Waits,
    /// It goes, as all do.
    Goes,
    /// It stays, and why.
    Stays(String),
}

/// Clients that are to leave together, by their numbers, each with its party's.
#[derive(Debug, Default)]
pub(crate) struct Parties(Mutex<HashMap<u64, (u64, Fate)>>);

impl Parties {
    /// A client is ready to go with its party.
    pub(crate) fn arrive(&self, client: u64, party: &Party) {
        let mut fates = lock(&self.0);
        let is_known = |&(number, _): &(u64, Fate)| number == party.number;
        if !fates.get(&client).is_some_and(is_known) {
            fates.insert(client, (party.number, Fate::Waits));
        }
    }

    /// What is decided of a client that has arrived. `is_gone`: whether one of the party is not to come any more. `may_go`: whether they
    /// can go, all of whom are there; that is so from then on.
    pub(crate) fn look(
        &self,
        client: u64,
        party: &Party,
        is_gone: impl Fn(u64) -> bool,
        may_go: impl FnOnce() -> bool,
    ) -> Fate {
        let mut fates = lock(&self.0);
        let arrived = (party.number, Fate::Waits);
        let is_there = |member: &u64| fates.get(member) == Some(&arrived) || is_gone(*member);
        if fates.get(&client) == Some(&arrived) && party.clients.iter().all(is_there) && may_go() {
            for member in &party.clients {
                fates.entry(*member).and_modify(|fate| *fate = (party.number, Fate::Goes));
            }
        }
        match fates.remove(&client) {
            Some((number, Fate::Waits)) => {
                fates.insert(client, (number, Fate::Waits));
                Fate::Waits
            }
            Some((_, fate)) => fate,
            None => Fate::Waits,
        }
    }

    /// A client stays, and so do the others of its party, also those that arrive later. False if all go by now.
    pub(crate) fn call_off(&self, client: u64, party: &Party, reason: &str) -> bool {
        let mut fates = lock(&self.0);
        if fates.remove(&client) == Some((party.number, Fate::Goes)) {
            return false;
        }
        let reason = format!("it shares memory or events with a process that stays: {reason}");
        for &other in party.clients.iter().filter(|&&other| other != client) {
            fates.insert(other, (party.number, Fate::Stays(reason.clone())));
        }
        true
    }

    /// A client is here no longer.
    pub(crate) fn forget(&self, client: u64) {
        lock(&self.0).remove(&client);
    }

    /// Another server numbers its parties anew.
    pub(crate) fn resume(&self) {
        lock(&self.0).retain(|_, (_, fate)| !matches!(fate, Fate::Stays(_)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(number: u64) -> Party {
        Party { number, clients: vec![1, 2] }
    }

    #[test]
    fn all_go_when_the_last_one_is_there() {
        let (parties, party) = (Parties::default(), party(1));
        let look = |client, may_go| parties.look(client, &party, |_| false, || may_go);
        parties.arrive(1, &party);
        assert_eq!(look(1, true), Fate::Waits, "the other one has not arrived");
        parties.arrive(2, &party);
        assert_eq!(look(2, false), Fate::Waits, "somebody else has what they have");
        assert_eq!([look(2, true), look(1, false)], [Fate::Goes, Fate::Goes]);
        parties.arrive(1, &party);
        assert_eq!(look(1, true), Fate::Waits, "it is back, and the other one has gone");
        assert_eq!(parties.look(1, &party, |member| member == 2, || true), Fate::Goes);
    }

    #[test]
    fn nobody_goes_without_one_that_stays() {
        let (parties, first, second) = (Parties::default(), party(1), party(2));
        parties.arrive(1, &first);
        assert!(parties.call_off(2, &first, "it is busy"));
        let look = |client, party| parties.look(client, party, |_| true, || true);
        let Fate::Stays(reason) = look(1, &first) else { panic!("it goes") };
        assert!(reason.contains("it is busy"), "{reason}");
        // Who comes too late hears of it, once.
        assert!(parties.call_off(1, &first, "it is busy"));
        parties.arrive(2, &first);
        assert!(matches!(look(2, &first), Fate::Stays(_)));
        // What was called off before says nothing of the next party.
        assert!(parties.call_off(1, &first, "it is busy"));
        parties.arrive(2, &second);
        assert_eq!(look(2, &second), Fate::Goes);
        // Who would call off what is decided goes with the others.
        parties.arrive(1, &second);
        parties.arrive(2, &second);
        assert_eq!(look(1, &second), Fate::Goes);
        assert!(!parties.call_off(2, &second, "it has waited for long"));
    }
}
