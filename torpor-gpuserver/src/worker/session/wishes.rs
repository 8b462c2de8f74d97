//! What others want of a session (`mailbox`), done by its own thread while it is idle or waits.

use crate::worker::mailbox::Wish;
use crate::worker::memory::arrivals::EVERYTHING;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::session::residency::Origin;
use std::sync::atomic::Ordering;
use torpor_proto::control::worker::Settings;

impl Session {
    /// Does what others want of an idle session.
    pub(crate) fn grant_wishes(&mut self) -> Result<(), Halt> {
        let link = self.link.clone();
        self.renew_settings();
        if link.wishes(Wish::Unload) {
            link.fulfil(Wish::Unload);
            self.settle()?;
            self.evict()?;
            self.shared.memory.trim();
        }
        if link.wishes(Wish::Evict) {
            link.fulfil(Wish::Evict);
            self.evict()?;
        }
        if link.wishes(Wish::Lease) {
            self.lend_lease()?;
        }
        let (wanted, wanted_waiting) = (link.take(Wish::Release), link.take(Wish::ReleaseWaiting));
        if wanted || (wanted_waiting && self.residency.waiting) {
            self.depart()?;
        } else if wanted_waiting {
            self.refuse_release("it waits no longer");
        }
        // Whoever waits for its turn comes anyway.
        if link.wishes(Wish::Load) && !self.residency.waiting {
            self.residency.loading = true;
            let loaded = self.activate().and_then(|()| self.bring_up_to(EVERYTHING));
            self.residency.loading = false;
            match loaded {
                Ok(()) => self.give_up_turn(),
                // The memory stays where it is; who asked for it sees that.
                Err(error) if self.is_refusal(error) => {}
                // It may be released: then it is loaded where it goes.
                Err(error) => return Err(error),
            }
            link.fulfil(Wish::Load);
        }
        if !self.residency.waiting && link.take(Wish::Request) && link.told.is_any() {
            self.residency.origin = Origin::Told;
            match self.activate() {
                Ok(()) => {}
                // Its first command tries again.
                Err(error) if self.is_refusal(error) => self.residency.origin = Origin::Inferred,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes over what is new in the settings.
    pub(crate) fn renew_settings(&mut self) {
        if self.link.wishes(Wish::Settings) {
            self.link.fulfil(Wish::Settings);
            if let Some(settings) = self.link.take_settings() {
                self.set_settings(&settings);
            }
        }
    }

    fn set_settings(&mut self, settings: &Settings) {
        let limit_bytes = settings.memory_limit_bytes.min(self.shared.memory.limit_bytes());
        self.space.set_limit_bytes(limit_bytes.max(self.space.allocated_bytes()));
        self.residency.writeback = settings.writeback();
        self.residency.whole = settings.whole;
        self.streams.watched.limit(settings.kernel_timeout_ms);
        self.link.slo_ms.store(settings.slo_ms, Ordering::Relaxed);
        self.link.image_limit_bytes.store(settings.image_limit_bytes, Ordering::Relaxed);
        self.link.pinned_limit_bytes.store(settings.pinned_limit_bytes, Ordering::Relaxed);
        self.shared.memory.set_pinned(self.link.client, settings.pinned);
    }
}
