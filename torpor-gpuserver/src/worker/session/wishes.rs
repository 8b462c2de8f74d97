//! What others want of a session (`mailbox`), done by its own thread while it is idle or waits.

use crate::worker::mailbox::{Answer, Standing, Wish};
use crate::worker::session::Session;
use crate::worker::session::coming::Errand;
use crate::worker::session::halt::Halt;
use crate::worker::session::residency::Origin;
use std::sync::atomic::Ordering;
use torpor_proto::control::worker::Settings;

impl Session {
    /// Does what others want of a session that stands like that, as far as it can without coming to the GPU.
    pub(crate) fn grant_wishes(&mut self, standing: Standing) -> Result<(), Halt> {
        for wish in Wish::ALL {
            if self.link.wishes(wish) {
                match wish.answer(standing) {
                    Answer::Now => self.grant(wish)?,
                    Answer::Denied(_) => self.deny(wish, standing),
                    Answer::Comes | Answer::Later => {}
                }
            }
        }
        Ok(())
    }

    fn grant(&mut self, wish: Wish) -> Result<(), Halt> {
        let link = self.link.clone();
        match wish {
            Wish::Settings => self.renew_settings(),
            Wish::Unload => {
                link.fulfil(Wish::Unload);
                self.settle()?;
                self.evict()?;
                self.shared.memory.trim();
            }
            Wish::Evict => {
                link.fulfil(Wish::Evict);
                self.evict()?;
            }
            Wish::Lease => self.lend_lease()?,
            Wish::Release | Wish::ReleaseWaiting => {
                // One answer is enough for both.
                let wanted = [Wish::Release, Wish::ReleaseWaiting].map(|release| link.take(release));
                if wanted.contains(&true) {
                    self.depart()?;
                }
            }
            Wish::Request => {
                link.fulfil(Wish::Request);
                self.residency.origin = Origin::Told;
            }
            // It comes, see `errand`.
            Wish::Load => {}
        }
        Ok(())
    }

    /// Tells whoever wants this why it cannot be, if that is so and nobody else has heard it.
    pub(crate) fn deny(&self, wish: Wish, standing: Standing) {
        if let Answer::Denied(reason) = wish.answer(standing)
            && self.link.take(wish)
        {
            self.refuse_release(reason);
        }
    }

    /// What else than a command an idle client comes to the GPU for.
    pub(crate) fn errand(&self) -> Option<Errand> {
        let comes = |wish: Wish| self.link.wishes(wish) && wish.answer(Standing::Idle) == Answer::Comes;
        if comes(Wish::Load) {
            return Some(Errand::Load);
        }
        let is_told = comes(Wish::Request) && self.link.take(Wish::Request) && self.link.told.is_any();
        is_told.then_some(Errand::Request)
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
