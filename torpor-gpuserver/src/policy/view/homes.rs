//! The node as [`apart`](crate::policy::apart) sees it: which GPUs have strangers to a client.

use crate::policy::apart::Place;
use crate::policy::view::{Client, NodeView};

impl NodeView {
    /// The GPUs for a client that has said its home.
    #[must_use]
    pub fn places_for(&self, client: &Client) -> Vec<Place> {
        let place = |(at, gpu): (usize, &super::Gpu)| Place {
            // None need have answered: a client with nothing on its GPU may go to a busy one.
            usable: gpu.ready && self.may_be_on(client, at),
            strangers: self.strangers(client, at),
            clients: self.others_at(client, at).count(),
        };
        self.gpus.iter().enumerate().map(place).collect()
    }

    /// Whether a move brings a client to no more strangers than it has where it is, and a rank to no other function's.
    #[must_use]
    pub fn keeps_apart(&self, client: &Client, to: usize) -> bool {
        client.home.is_none()
            || self.strangers(client, to) <= self.strangers(client, client.gpu)
                && !self.has_rivals(client, to)
    }

    /// How many processes of its function that use another of its devices are on a GPU, or on the way to it.
    fn strangers(&self, client: &Client, gpu: usize) -> usize {
        let is_stranger = |other: &&Client| {
            other.function == client.function
                && client.home.is_some()
                && other.home.is_some_and(|home| Some(home) != client.home)
        };
        self.others_at(client, gpu).filter(is_stranger).count()
    }

    fn others_at(&self, client: &Client, gpu: usize) -> impl Iterator<Item = &Client> {
        let id = client.id;
        self.clients.values().filter(move |other| {
            other.id != id && !other.failed && other.moving_to.unwrap_or(other.gpu) == gpu
        })
    }
}
