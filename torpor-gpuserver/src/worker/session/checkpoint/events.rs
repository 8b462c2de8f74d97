//! A client's events, saved and restored: what is left of a record is its time.

use crate::driver::Event;
use crate::worker::gpu::ipc::Secret;
use crate::worker::objects::event::{ClientEvent, Epoch};
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use std::rc::Rc;
use torpor_proto::control::migration;

impl Session {
    /// The client's events, for another worker. The client's streams are idle.
    pub(crate) fn save_events(&mut self) -> Result<Vec<migration::Event>, Halt> {
        let timed = self.events.iter().any(|(_, event)| event.has_time());
        let epoch = if timed { Some(self.take_time()?) } else { None };
        Ok(self.events.iter().map(|(id, event)| event.save(id, epoch.as_ref())).collect())
    }

    /// Makes the events that the client had at another worker.
    pub(crate) fn restore_events(&mut self, events: Vec<migration::Event>) -> Result<(), Halt> {
        if events.iter().any(|event| event.reached_ns.is_some()) {
            self.epoch = Some(self.take_time()?);
        }
        for saved in events {
            let event = ClientEvent::restore(&self.shared.device, &saved)?;
            if let Ok(secret) = <[u64; 2]>::try_from(&saved.secret[..]) {
                self.export_event(&event, Secret(secret))?;
            }
            self.events.insert(saved.id, Rc::new(event))?;
        }
        Ok(())
    }

    /// Takes the time. Waits until the setup stream is idle.
    fn take_time(&mut self) -> Result<Epoch, Halt> {
        let event = Event::new(&self.shared.device, 0)?;
        event.record(self.streams.enter_setup(), 0)?;
        let fence = self.streams.fence_setup()?;
        self.wait_for(Vec::from_iter(fence))?;
        Ok(Epoch::now(event))
    }
}
