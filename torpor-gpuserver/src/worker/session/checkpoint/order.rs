//! Streams and events as data. What is left of an event's record is its time.

use super::saved::Saved;
use crate::driver::Event;
use crate::worker::gpu::ipc::Secret;
use crate::worker::objects::event::{ClientEvent, Epoch, clock};
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::streams::legacy_order::Role;
use crate::worker::streams::parts::Levels;
use crate::worker::streams::{Declared, Streams};
use std::rc::Rc;
use torpor_proto::control::migration;

/// By how much the node's time of an event may be wrong.
const EXACT_NS: i64 = 100_000;

/// How often the time is taken where the thread is taken off its CPU meanwhile.
const TRIES: u32 = 8;

impl Saved for Streams {
    const NAME: &'static str = "streams";
    type State = Vec<migration::Stream>;

    fn save(session: &mut Session) -> Result<Self::State, Halt> {
        let declared = session.streams.declared();
        let stream = |(id, Declared { role, context, priority, part })| {
            let (blocking, is_legacy) = (role == Role::Blocking, role == Role::Legacy);
            migration::Stream { id, blocking, priority, context, is_legacy, part: part.bytes().to_vec() }
        };
        Ok(declared.map(stream).collect())
    }

    fn restore(session: &mut Session, state: Self::State) -> Result<(), Halt> {
        for migration::Stream { id, blocking, priority, context, is_legacy, part } in state {
            let role = match (is_legacy, blocking) {
                (true, _) => Role::Legacy,
                (false, true) => Role::Blocking,
                (false, false) => Role::NonBlocking,
            };
            let part = Levels::read(&part)?;
            session.streams.declare(id, Declared { role, context, priority, part })?;
        }
        Ok(())
    }
}

impl Saved for ClientEvent {
    const NAME: &'static str = "events";
    type State = Vec<migration::Event>;

    fn save(session: &mut Session) -> Result<Self::State, Halt> {
        let timed = session.events.iter().any(|(_, event)| event.has_time());
        let epoch = if timed { Some(session.take_time()?) } else { None };
        Ok(session.events.iter().map(|(id, event)| event.save(id, epoch.as_ref())).collect())
    }

    fn restore(session: &mut Session, state: Self::State) -> Result<(), Halt> {
        if state.iter().any(|event| event.reached_ns.is_some()) {
            session.epoch = Some(session.take_time()?);
        }
        for saved in state {
            let event = Self::restore(&session.shared.device, &saved)?;
            if let Ok(secret) = <[u64; 2]>::try_from(&saved.secret[..]) {
                session.regain_event(&event, Secret(secret))?;
            }
            session.events.insert(saved.id, Rc::new(event))?;
        }
        Ok(())
    }
}

impl Session {
    /// Takes the time. Waits until the setup stream is idle.
    fn take_time(&mut self) -> Result<Epoch, Halt> {
        let mut best = self.take_time_once()?;
        for _ in 1..TRIES {
            if best.doubt_ns() <= EXACT_NS {
                break;
            }
            let next = self.take_time_once()?;
            if next.doubt_ns() < best.doubt_ns() {
                best = next;
            }
        }
        Ok(best)
    }

    fn take_time_once(&mut self) -> Result<Epoch, Halt> {
        let event = Event::new(&self.shared.device, 0)?;
        let stream = self.streams.enter_setup();
        let before = clock();
        event.record(stream, 0)?;
        let fence = self.streams.fence_setup()?;
        self.wait_for(Vec::from_iter(fence))?;
        Ok(Epoch::between(event, before, clock()))
    }
}
