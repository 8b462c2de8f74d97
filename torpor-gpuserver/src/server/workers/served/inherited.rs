//! Clients that the worker had when another server ended.

use super::states::States;
use super::{Attaching, Served};
use crate::server::keeper::Keeper;
use crate::server::workers::inherited::InheritedClient;
use crate::server::workers::order::NotServed;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::oneshot;
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
        let mut served = Self { states: States::new(keeper), ..Self::default() };
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

    /// Takes those that the worker has not said that it serves, with what each is: it is only to let go of them. Who is nothing that is known fails with `error`.
    pub fn take_unconfirmed(&mut self, error: CudaError) -> Vec<(u64, Arc<OwnedFd>)> {
        let mut known = Vec::new();
        for client in std::mem::take(&mut self.unconfirmed) {
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
                    tracing::error!(client, "client lost: neither a worker nor the server has it");
                    channel.fail(error);
                }
            }
        }
        known
    }
}
