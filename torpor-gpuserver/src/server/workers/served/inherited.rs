//! Clients that the worker had when another server ended.

use super::states::States;
use super::{Attaching, NOT_SERVED, Served};
use crate::server::keeper::Keeper;
use crate::server::workers::inherited::InheritedClient;
use crate::server::workers::order::{NotReleased, NotServed};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::oneshot;
use torpor_proto::channel::MappedChannel;
use torpor_proto::error::CudaError;

/// A client that comes to a worker, as the server before wanted.
#[derive(Debug)]
pub struct Coming {
    /// What it comes as.
    pub state: Arc<OwnedFd>,
    /// What comes of it.
    pub answer: oneshot::Receiver<Result<(), NotServed>>,
}

impl Served {
    /// Those that the server before has left.
    pub fn new(keeper: &Keeper, clients: Vec<InheritedClient>) -> Self {
        let is_resuming = !clients.is_empty();
        let mut served = Self { states: States::new(keeper), is_resuming, ..Self::default() };
        for InheritedClient { client, channel, state } in clients {
            match channel {
                Some(channel) => {
                    served.channels.insert(client, channel);
                    served.unconfirmed.insert(client);
                    state.into_iter().for_each(|state| served.states.inherit(client, state));
                }
                None => drop(served.going.insert(client)),
            }
        }
        served
    }

    /// The worker is about to serve a client whom the server before gave it.
    pub fn coming(&mut self, client: u64) -> Option<Coming> {
        self.unconfirmed.take(&client)?;
        let (state, (done, answer)) = (self.states.remove(client), oneshot::channel());
        self.attaching.insert(client, Attaching { state: state.clone(), done });
        Some(Coming { state: state?, answer })
    }

    /// The worker has let go of a client for a server before. Whether that wanted the client to go on here or elsewhere, or found it gone,
    /// is not known: it is one that the worker does not serve.
    pub(super) fn was_let_go(&mut self, client: u64) {
        if let Some(Attaching { state: Some(state), .. }) = self.attaching.remove(&client) {
            self.states.inherit(client, state);
        }
        if self.channels.contains_key(&client) {
            self.unconfirmed.insert(client);
            self.let_go.insert(client);
        }
    }

    /// Whether the worker has refused a client to a server before, which would have asked again, here or elsewhere.
    pub(super) fn was_refused(&self, client: u64) -> bool {
        let is_well = |channel: &Arc<MappedChannel>| channel.sticky_error().is_none();
        self.unconfirmed.contains(&client)
            && self.channels.get(&client).is_some_and(is_well)
            && self.states.that_holds(client).is_some()
    }

    /// The worker has said all. Takes those that it has not said that it serves, with what each is: it is only to let go of them. Who is
    /// nothing that is known fails with `error`.
    pub fn take_unconfirmed(&mut self, error: CudaError) -> Vec<(u64, Arc<OwnedFd>)> {
        let (mut known, let_go) = (Vec::new(), std::mem::take(&mut self.let_go));
        self.is_resuming = false;
        for client in std::mem::take(&mut self.unconfirmed) {
            // The worker may not say so: a session that is about to end answers nobody.
            if let Some(done) = self.releasing.remove(&client) {
                let _ = done.send(Err(NotReleased(NOT_SERVED.to_owned())));
            }
            let Some(channel) = self.channels.get(&client).filter(|channel| channel.sticky_error().is_none())
            else {
                continue;
            };
            match self.states.that_holds(client).cloned() {
                Some(state) => {
                    self.channels.remove(&client);
                    self.states.remove(client);
                    self.going.insert(client);
                    known.push((client, state));
                }
                None => {
                    match let_go.contains(&client) {
                        true => tracing::debug!(client, "the server before has let go of it: it was going"),
                        false => {
                            tracing::error!(client, "client lost: neither a worker nor the server has it")
                        }
                    }
                    channel.fail(error);
                }
            }
        }
        known
    }
}
