//! Who goes on at the next worker when this one is gone.

use super::Served;
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
