//! Shared events: events that several clients of one function have.
//!
//! A client that waits for one waits for the record that is the last at that moment, whatever is recorded later; so each record
//! is a driver's event of its own where somebody still has the one before.

use crate::driver::{Device, Event};
use crate::worker::gpu::ipc::Secret;
use crate::worker::sync::lock;
use std::sync::{Arc, Mutex};
use torpor_proto::error::CudaError;

/// An event of several clients.
#[derive(Debug)]
pub(crate) struct SharedEvent {
    secret: Secret,
    last: Mutex<Arc<Event>>,
    /// Once for each of its numbers.
    members: Mutex<Vec<u64>>,
}

/// A client's part in a shared event; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Membership {
    /// What it shares.
    pub(crate) event: Arc<SharedEvent>,
    client: u64,
}

impl SharedEvent {
    /// What was one client's, with its last record.
    pub(crate) fn new(secret: Secret, last: Arc<Event>) -> Arc<Self> {
        Arc::new(Self { secret, last: Mutex::new(last), members: Mutex::default() })
    }

    /// What it is imported with.
    pub(crate) fn secret(&self) -> Secret {
        self.secret
    }

    /// Who has it.
    pub(crate) fn members(&self) -> Vec<u64> {
        lock(&self.members).clone()
    }

    /// Its last record, or one that was never made.
    pub(crate) fn last(&self) -> Arc<Event> {
        lock(&self.last).clone()
    }

    /// The driver's event for a record that is the last from now on.
    pub(crate) fn to_record(&self, device: &Arc<Device>, flags: u32) -> Result<Arc<Event>, CudaError> {
        let mut last = lock(&self.last);
        if Arc::strong_count(&last) > 1 {
            *last = Arc::new(Event::new(device, flags)?);
        }
        Ok(last.clone())
    }
}

impl Membership {
    /// A client has it from now on.
    pub(crate) fn new(event: Arc<SharedEvent>, client: u64) -> Self {
        lock(&event.members).push(client);
        Self { event, client }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut members = lock(&self.event.members);
        if let Some(at) = members.iter().position(|&member| member == self.client) {
            members.swap_remove(at);
        }
    }
}
