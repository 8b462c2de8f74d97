//! Chunks on their way between slots and files, for whoever looks for room.

use super::Store;
use crate::server::clients::ClientId;
use crate::server::store::error::StoreError;
use crate::server::store::index::{RestoreTicket, SpillTicket, Spilled};
use crate::server::store::spill::{SpillError, SpillFiles};
use std::sync::Arc;

impl Store {
    /// Writes chunks to files. `slots` are what that is for.
    pub(super) async fn spill(
        self: &Arc<Self>,
        client: ClientId,
        slots: usize,
        files: &Arc<SpillFiles>,
        tickets: Vec<SpillTicket>,
    ) -> Result<(), StoreError> {
        let write = |ticket: SpillTicket| {
            let memory = self.state().memory(self.slab_slots, ticket.slot);
            let (files, chunk, hash) = (files.clone(), ticket.chunk, ticket.hash);
            let writing = move || files.write(chunk, &memory.copy_out(), hash);
            (ticket, tokio::task::spawn_blocking(writing))
        };
        let started: Vec<_> = tickets.into_iter().map(write).collect();
        let mut result = Ok(());
        for (ticket, writing) in started {
            let written = writing.await;
            let chunk = ticket.chunk;
            let mut state = self.state();
            let fate = match &written {
                Ok(Ok(hash)) => Spilled::Written(*hash),
                Ok(Err(SpillError::Memory(_))) => Spilled::Damaged,
                _ => Spilled::Failed,
            };
            let kept = state.index.end_spill(ticket, fate);
            if !kept {
                self.delete_now(&state, &[chunk]);
            }
            match written {
                Ok(Err(error @ SpillError::Memory(_))) => tracing::error!("{error}"),
                Ok(Err(error)) => {
                    let (function, fill) = (state.function(client), self.fill(&state, slots));
                    result = Err(StoreError::Unspillable { function, fill, error });
                }
                _ => {}
            }
        }
        self.wake();
        result
    }

    /// Reads chunks from files into the slots that their tickets have.
    pub(super) async fn restore(
        self: &Arc<Self>,
        client: ClientId,
        tickets: Vec<RestoreTicket>,
    ) -> Result<(), StoreError> {
        let Some(files) = &self.files else { return Ok(()) };
        let read = |ticket: RestoreTicket| {
            let memory = self.state().memory(self.slab_slots, ticket.slot);
            let (files, chunk, hash) = (files.clone(), ticket.chunk, ticket.hash);
            let reading = move || files.read(chunk, hash).map(|bytes| memory.copy_in(&bytes));
            (ticket, tokio::task::spawn_blocking(reading))
        };
        let started: Vec<_> = tickets.into_iter().map(read).collect();
        let mut result = Ok(());
        for (ticket, reading) in started {
            let done = reading.await;
            let chunk = ticket.chunk;
            let mut state = self.state();
            if state.index.end_restore(ticket, matches!(done, Ok(Ok(())))) {
                self.delete_now(&state, &[chunk]);
            }
            // A chunk that came back otherwise, or that nobody refers to any more, may well be missing.
            let still_wanted = state.index.missing(client).contains(&chunk);
            match done {
                Ok(Err(error)) if still_wanted => {
                    result = Err(StoreError::Spill { function: state.function(client), error });
                }
                _ => {}
            }
        }
        self.wake();
        result
    }
}
