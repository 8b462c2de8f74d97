//! Clients that have asked for nothing for long: nothing is left to do for them, and what they would only keep is given back.

use crate::worker::session::Session;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Session {
    /// Whether nothing of an idle client is still to be saved or identified.
    pub(crate) fn is_settled(&self) -> bool {
        !self.can_be_covered() && !self.residency.unidentified
    }

    /// Gives the pages of the staging area back after so long without a command, if nothing that was staged may be read again. The next
    /// command brings them back.
    pub(crate) fn vacate_staging(&mut self, idle: Duration) {
        // The next worker reads again what was staged since the client's state was written.
        let is_needed = !self.is_covered() && self.survives();
        if idle < self.shared.tuning.staging_idle || is_needed || self.space.host.is_staging_vacant() {
            return;
        }
        // Work that goes on without a turn may read it now; and the driver unlocks memory when no kernel runs, and keeps all others
        // waiting until then.
        if !matches!(self.check(), Ok(false)) || !self.shared.is_idle() {
            return;
        }
        let link = self.link.clone();
        let Some(channel) = link.channel.get() else { return };
        channel.staging().vacate(|| {
            // What was posted before nobody copied any more is in the ring by now.
            if channel.ring().is_drained() && self.space.host.vacate_staging() {
                link.usage.pinned_bytes.store(self.space.host.locked_bytes(), Ordering::Relaxed);
                tracing::debug!(client = link.client, "idle for long: its staging area is unlocked");
            }
        });
    }

    /// The client does something again.
    #[inline]
    pub(crate) fn return_staging(&mut self) {
        if self.space.host.is_staging_vacant() {
            self.space.host.return_staging();
            self.link.usage.pinned_bytes.store(self.space.host.locked_bytes(), Ordering::Relaxed);
        }
    }
}
