//! The node as [`spreading`](crate::policy::spreading) sees it: who is busy, and how much work each GPU has.

use crate::policy::spreading::{Busy, Gpu};
use crate::policy::view::{Client, NodeView};
use std::time::Duration;

/// A client stays at least so long where it was moved to.
const STAY: Duration = Duration::from_secs(1);

impl NodeView {
    /// All GPUs, and the clients that may leave a crowded one.
    #[must_use]
    pub fn crowd(&self) -> (Vec<Gpu>, Vec<Busy>) {
        let gpu = |gpu: &super::Gpu| Gpu { usable: gpu.is_usable(), load: 0.0, room_bytes: gpu.limit_bytes };
        let mut gpus: Vec<Gpu> = self.gpus.iter().map(gpu).collect();
        let mut busy = Vec::new();
        for client in self.clients.values().filter(|client| !client.failed) {
            let Some(figures) = client.figures else { continue };
            let load = self.loads.of(client.id).unwrap_or(0.0);
            let Some(place) = gpus.get_mut(client.moving_to.unwrap_or(client.gpu)) else { continue };
            place.load += load;
            if load > 0.0 || client.rules.pinned || client.moving_to.is_some() {
                place.room_bytes = place.room_bytes.saturating_sub(figures.allocated_bytes);
            }
            if let Some(since) = self.loads.busy_since(client.id)
                && !figures.fixed
                && client.may_move(self.at, STAY)
            {
                busy.push(Busy {
                    client: client.id,
                    gpu: client.gpu,
                    load,
                    lasting: self.at.saturating_sub(since),
                    bytes: figures.allocated_bytes,
                    places: self.places(client),
                });
            }
        }
        (gpus, busy)
    }

    fn places(&self, client: &Client) -> Vec<usize> {
        let may_be_on = |&gpu: &usize| self.may_be_on(client, gpu) && self.keeps_apart(client, gpu);
        (0..self.gpus.len()).filter(may_be_on).collect()
    }
}
