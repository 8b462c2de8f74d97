//! Shared events: those that other clients of the function have, too, as one of their sessions deals with them.

use crate::worker::gpu::ipc::Secret;
use crate::worker::gpu::ipc::event::Membership;
use crate::worker::objects::event::ClientEvent;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use std::rc::Rc;
use std::sync::Arc;
use torpor_proto::error::CudaError;

impl Session {
    /// Makes an event one that other clients of the function may import. Returns what with, which is `secret` if it is not
    /// shared yet.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_HANDLE` for one that was not made for that.
    pub(crate) fn export_event(&mut self, event: &ClientEvent, secret: Secret) -> Result<Secret, CudaError> {
        let shared = event.share(secret, self.link.client).ok_or(CudaError::INVALID_HANDLE)?;
        self.shared.ipc.events.add(shared.secret(), &self.link.function, &shared);
        self.residency.shares = true;
        Ok(shared.secret())
    }

    /// Gives a number to an event that another client exported.
    ///
    /// # Errors
    /// As [`Self::find_export`].
    pub(crate) fn import_event(&mut self, event: u32, (secret, exporter): (Secret, u64)) -> Result<(), Halt> {
        self.events.check_free(event)?;
        self.residency.shares = true;
        let found = self.find_export(|session| &session.shared.ipc.events, secret, exporter)?;
        Ok(self
            .events
            .insert(event, Rc::new(ClientEvent::imported(Membership::new(found, self.link.client))))?)
    }

    /// An event that clients had together at another worker is one event here, too.
    ///
    /// # Errors
    /// As [`Self::export_event`].
    pub(crate) fn regain_event(&mut self, event: &ClientEvent, secret: Secret) -> Result<(), CudaError> {
        let client = self.link.client;
        let its = event.share(secret, client).ok_or(CudaError::INVALID_HANDLE)?;
        let there = self.shared.ipc.events.find_or_add(secret, &self.link.function, &its);
        if !Arc::ptr_eq(&there, &its) {
            event.join(Membership::new(there, client));
        }
        self.residency.shares = true;
        Ok(())
    }

    /// They may be imported here, after all.
    pub(crate) fn offer_events(&self) {
        for event in self.events.iter().filter_map(|(_, event)| event.shared()) {
            self.shared.ipc.events.add(event.secret(), &self.link.function, &event);
        }
    }
}
