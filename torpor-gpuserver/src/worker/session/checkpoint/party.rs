//! Leaving together: a client that has memory or events together with others goes to another worker when all of these are ready to.
//!
//! Until that is decided nothing of it runs: the others would go on with what it does, and its state would not tell of what they do.

use crate::worker::gpu::ipc::party::Fate;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::session::pause::BUSY_NAP;
use std::time::{Duration, Instant};
use torpor_proto::control::worker::Party;

/// Why a client stays that has memory or events together with others.
pub(super) const SHARES: &str = "it shares memory or events with another process of its function, which was not asked to go with it at the same time";

/// The number of no party.
const ALONE: u64 = 0;

/// Why a client stays whose company does not come.
const LATE: &str = "another process that it shares memory or events with was not idle within 2 s, or could not be given up with it";

/// How long it waits for the others, whose work may be long, or wait for its own.
const PATIENCE: Duration = Duration::from_secs(2);

impl Session {
    /// With whom the client is to go, itself among them.
    pub(super) fn party(&self) -> Party {
        let (party, client) = (self.link.company.party(), self.link.client);
        if party.clients.contains(&client) { party } else { Party { number: ALONE, clients: vec![client] } }
    }

    /// Whether it is to go alone, and cannot. Who goes with others may wait for one whose process has just ended.
    pub(super) fn lacks_company(&self, party: &Party) -> bool {
        party.number == ALONE && !self.has_all(party)
    }

    /// Whether nobody beside its party has anything of what these have.
    fn has_all(&self, party: &Party) -> bool {
        !self.residency.shares || self.shared.ipc.is_all_of(&party.clients)
    }

    /// The client's work is done, and its memory saved: waits for the others of its party. Returns whether it goes, or why not.
    ///
    /// # Errors
    /// [`Halt::Lost`], or [`Halt::Interrupted`].
    pub(super) fn wait_for_company(&mut self, party: &Party) -> Result<Fate, Halt> {
        if !self.residency.shares {
            return Ok(Fate::Goes);
        }
        let (shared, link) = (self.shared.clone(), self.link.clone());
        // Also one that is about to end: what it has is nobody's soon.
        let is_gone = |member: u64| shared.link(member).is_none_or(|link| link.is_stopping());
        let may_go = || shared.ipc.depart(&party.clients, &link.function);
        let since = Instant::now();
        shared.ipc.parties.arrive(link.client, party);
        loop {
            if self.is_interrupted() {
                return Err(Halt::Interrupted);
            }
            // One that has ended meanwhile may have left it memory on the GPU.
            if self.space.resident_bytes() > 0 && !self.save_whole()? {
                return Ok(self.call_off(party, super::departure::UNSAVED));
            }
            match shared.ipc.parties.look(link.client, party, is_gone, may_go) {
                Fate::Waits if since.elapsed() >= PATIENCE => {
                    let reason = if self.has_all(party) { LATE } else { SHARES };
                    return Ok(self.call_off(party, reason));
                }
                Fate::Waits => {}
                decided => return Ok(decided),
            }
            self.lend_pen()?;
            self.lend_lease()?;
            std::thread::sleep(BUSY_NAP);
        }
    }

    /// The client stays, and the others of its party hear why, unless it was decided meanwhile that all go.
    pub(super) fn call_off(&self, party: &Party, reason: &str) -> Fate {
        match self.shared.ipc.parties.call_off(self.link.client, party, reason) {
            true => Fate::Stays(reason.to_owned()),
            false => Fate::Goes,
        }
    }
}
