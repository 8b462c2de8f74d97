//! Who goes on at the next worker when this one is gone.

use super::Served;
use crate::server::workers::order::Death;
use crate::state_file;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use torpor_proto::channel::MappedChannel;

impl Served {
    /// Who goes on at the next worker, with what it is. None of the worker's threads runs any more: what holds now holds until then.
    #[must_use]
    pub fn survivors(&self) -> Vec<(u64, Arc<OwnedFd>)> {
        let survivor = |(&client, channel): (&u64, &Arc<MappedChannel>)| {
            // One that fails already has been told, and one that is to be let go of goes.
            let survives = channel.sticky_error().is_none() && !self.detaching.contains_key(&client);
            Some((client, self.states.that_holds(client).filter(|_| survives)?.clone()))
        };
        self.channels.iter().filter_map(survivor).collect()
    }

    /// Why a client is lost with this worker, which died like that; `None` if it goes anyway.
    #[must_use]
    pub fn why_lost(&self, client: u64, death: &Death) -> Option<&'static str> {
        if self.detaching.contains_key(&client) {
            return None;
        }
        let is_culprit = death.culprit == Some(client);
        let told = if is_culprit { "its kernels ended the worker" } else { "it had been told of an error" };
        Some(self.states.why_void(client).filter(|_| !is_culprit).unwrap_or(told))
    }

    /// Survivors that have done nothing since they became what they are: they are nobody's here from now on.
    pub fn take_quiet(&mut self) -> Vec<(u64, Arc<OwnedFd>)> {
        let mut quiet = self.survivors();
        quiet.retain(|(_, state)| !state_file::is_outgrown(state));
        for (client, _) in &quiet {
            self.channels.remove(client);
            self.states.remove(*client);
            self.releasing.remove(client);
            self.costing.retain(|&(whose, _), _| whose != *client);
        }
        quiet
    }
}
