//! Questions to the node server: a session asks with its own thread and waits for the answer, looking now and then whether it is
//! to end. An answer that comes after that is dropped: its client is gone soon, and the server gives back what it had.

use crate::worker::gpu::host_store::{Place, Referred, StoreError};
use crate::worker::server_socket::ServerSocket;
use crate::worker::sync::lock;
use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use torpor_proto::control::worker::{
    self, Places, StoreAnswer, StoreRequest, from_worker, store_answer, store_request,
};

/// Between two looks at whether a session that waits is to end.
const LOOK: Duration = Duration::from_millis(5);

/// What has come of an answer, which may be in several messages.
#[derive(Debug, Default)]
struct Waiting {
    asked: StoreRequest,
    referred: Vec<Referred>,
    lease_lost: bool,
    done: Option<Result<(), StoreError>>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    waiting: HashMap<u64, Waiting>,
}

/// Questions that wait for their answers.
#[derive(Debug, Default)]
pub(super) struct Questions {
    state: Mutex<State>,
    answered: Condvar,
}

impl Questions {
    /// Asks, and waits for the answer. True if the client has no lease any more.
    pub(super) fn ask(
        &self,
        server: &ServerSocket,
        client: u64,
        body: store_request::Body,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<(Vec<Referred>, bool), StoreError> {
        let mut state = self.state();
        state.last += 1;
        let request = state.last;
        let asked = StoreRequest { request, client, body: Some(body) };
        state.waiting.insert(request, Waiting { asked: asked.clone(), ..Waiting::default() });
        drop(state);
        if server.send(from_worker::Body::StoreRequest(asked)).is_err() {
            self.state().waiting.remove(&request);
            return Err(StoreError::Lost);
        }
        let mut state = self.state();
        loop {
            let waiting = state.waiting.get_mut(&request).ok_or(StoreError::Lost)?;
            if let Some(done) = waiting.done.take() {
                let (referred, lease_lost) = (std::mem::take(&mut waiting.referred), waiting.lease_lost);
                state.waiting.remove(&request);
                return done.map(|()| (referred, lease_lost));
            }
            if interrupted() {
                state.waiting.remove(&request);
                return Err(StoreError::Interrupted);
            }
            state = self.answered.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Asks everything again that has had no answer: another server goes on where the one before was killed. What was begun to be
    /// answered begins anew.
    pub(super) fn ask_again(&self, server: &ServerSocket) {
        let mut state = self.state();
        for waiting in state.waiting.values_mut().filter(|waiting| waiting.done.is_none()) {
            waiting.referred.clear();
            server.tell(from_worker::Body::StoreRequest(waiting.asked.clone()));
        }
    }

    /// What the server answers. `is_here`: whether there is such a slot.
    pub(super) fn answer(&self, answer: StoreAnswer, is_here: impl Fn(u32) -> bool) {
        let mut state = self.state();
        // Whoever asked may have been interrupted.
        let Some(waiting) = state.waiting.get_mut(&answer.request) else { return };
        if waiting.done.is_some() {
            // It was asked again, of a server that had heard it the first time.
            return;
        }
        match answer.result {
            Some(store_answer::Result::Places(Places { places, more, lease_lost })) => {
                waiting.lease_lost = lease_lost;
                for worker::Place { chunk, slot, references: count, name } in places {
                    if !is_here(slot) {
                        tracing::error!(
                            "the node server names slot {slot} of the host store, which is not here"
                        );
                        waiting.done = Some(Err(StoreError::Lost));
                    }
                    let name = name.unwrap_or(chunk);
                    waiting.referred.push(Referred { place: Place { chunk, slot }, count, name });
                }
                if !more && waiting.done.is_none() {
                    waiting.done = Some(Ok(()));
                }
            }
            Some(store_answer::Result::Refusal(reason)) => {
                waiting.done = Some(Err(StoreError::Refused(reason)))
            }
            None => waiting.done = Some(Err(StoreError::Lost)),
        }
        self.answered.notify_all();
    }

    /// Whether nobody waits.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.state().waiting.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}
