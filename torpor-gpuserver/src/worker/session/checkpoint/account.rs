//! What is known of a client as data: where it is in its life, what it was counted for, what it printed and what it wants of the
//! context.

use super::saved::Saved;
use crate::policy::reuse::Past;
use crate::worker::gpu::context_limits::ContextLimits;
use crate::worker::gpu::memory::Reserved;
use crate::worker::mailbox::LinkUsage;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::session::printing::Printing;
use crate::worker::session::residency::Residency;
use crate::worker::work_time::micros;
use std::sync::atomic::Ordering;
use std::time::Duration;
use torpor_proto::control::migration;
use torpor_proto::error::CudaError;

impl Saved for Residency {
    const NAME: &'static str = "place in its life";
    type State = Option<migration::Residency>;

    fn save(session: &mut Session) -> Result<Self::State, Halt> {
        let Self { settled, answered, packs_addresses, order, .. } = &session.residency;
        let (settled, answered, packs_addresses) = (*settled, *answered, *packs_addresses);
        Ok(Some(migration::Residency { settled, answered, packs_addresses, order: order.clone() }))
    }

    /// The lease was given back where the client was.
    fn restore(session: &mut Session, state: Self::State) -> Result<(), Halt> {
        let migration::Residency { settled, answered, packs_addresses, order } = state.unwrap_or_default();
        let new = &session.residency;
        session.residency = Self {
            settled,
            answered,
            packs_addresses,
            order,
            whole: new.whole,
            shares: new.shares,
            may_seek: new.may_seek,
            lease_lost: true,
            unidentified: true,
            came_as_state: true,
            ..Self::new(new.writeback)
        };
        Ok(())
    }
}

impl Saved for LinkUsage {
    const NAME: &'static str = "counts";
    type State = Option<migration::Counts>;

    fn save(session: &mut Session) -> Result<Self::State, Halt> {
        let usage = &session.link.usage;
        Ok(Some(migration::Counts {
            commands: usage.commands.load(Ordering::Relaxed),
            requests: usage.requests.load(Ordering::Relaxed),
            hits: usage.hits.load(Ordering::Relaxed),
            swaps: usage.swaps.load(Ordering::Relaxed),
            failures: session.failures,
        }))
    }

    fn restore(session: &mut Session, state: Self::State) -> Result<(), Halt> {
        let (counts, usage) = (state.unwrap_or_default(), &session.link.usage);
        usage.commands.store(counts.commands, Ordering::Relaxed);
        usage.requests.store(counts.requests, Ordering::Relaxed);
        usage.hits.store(counts.hits, Ordering::Relaxed);
        usage.swaps.store(counts.swaps, Ordering::Relaxed);
        session.link.told.came(usage.counts());
        session.failures = counts.failures;
        Ok(())
    }
}

impl Saved for Past {
    const NAME: &'static str = "uses";
    type State = Option<migration::Uses>;

    fn save(session: &mut Session) -> Result<Self::State, Halt> {
        let past = session.shared.memory.past_uses(session.link.client);
        let uses = |Self { gaps, seconds, since }| migration::Uses { gaps, seconds, since_us: micros(since) };
        Ok(past.map(uses))
    }

    fn restore(session: &mut Session, state: Self::State) -> Result<(), Halt> {
        if let Some(migration::Uses { gaps, seconds, since_us }) = state {
            let past = Self { gaps, seconds, since: Duration::from_micros(since_us) };
            session.shared.memory.resume_uses(session.link.client, past);
        }
        Ok(())
    }
}

impl Saved for Printing {
    const NAME: &'static str = "printed text";
    type State = Vec<u8>;

    /// What the client has not taken.
    fn save(session: &mut Session) -> Result<Self::State, Halt> {
        Ok(session.printing.untaken().to_vec())
    }

    fn restore(session: &mut Session, state: Self::State) -> Result<(), Halt> {
        session.restore_text(state);
        Ok(())
    }
}

impl Saved for ContextLimits {
    const NAME: &'static str = "context limits";
    type State = Vec<migration::Limit>;

    fn save(session: &mut Session) -> Result<Self::State, Halt> {
        let wanted = session.shared.limits.wanted_by(session.link.client);
        Ok(wanted.into_iter().map(|(limit, value)| migration::Limit { limit, value }).collect())
    }

    fn restore(session: &mut Session, state: Self::State) -> Result<(), Halt> {
        let (shared, client) = (session.shared.clone(), session.link.client);
        // Others are asked to leave, but nobody waits for them here: a client that is moved stays where it is.
        let reserve = |bytes| match shared.memory.reserve(client, bytes, &shared.turns) {
            Reserved::Granted => Ok(()),
            _ => Err(Halt::Refused(CudaError::OUT_OF_MEMORY)),
        };
        for migration::Limit { limit, value } in state {
            let wanted = (client, limit, value);
            let _silence = match shared.limits.is_short(&shared.device, wanted)? {
                true => session.wait_for_silence()?,
                false => None,
            };
            shared.limits.raise((&shared.device, &shared.memory), wanted, reserve)?;
        }
        Ok(())
    }
}
