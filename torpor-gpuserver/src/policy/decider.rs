//! Who moves where: the one decider of a node. It hears events, keeps the [picture](NodeView), and says what is to be done; whoever
//! has it carries that out and tells it what became of it. No clock, no I/O: the server and simulations have the same one.

use crate::policy::apart::apart;
use crate::policy::due::due;
use crate::policy::event::{Event, What, Why};
use crate::policy::placement;
use crate::policy::spreading::spread;
use crate::policy::view::{Client, Loads, NodeView};
use std::time::Duration;

/// A client stays at least so long where it is, though it waits.
const STAY: Duration = Duration::from_millis(100);

/// What is said of clients that have been busy for less is soon out of date.
const YOUNG: Duration = Duration::from_millis(500);

/// A client that is to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Its number.
    pub client: u64,
    /// Its generation in the picture of which this was decided: with another one, it is out of date.
    pub generation: u64,
    /// Where it is to go.
    pub to: usize,
    /// Why.
    pub why: Why,
}

/// The picture of a node, and the policies.
#[derive(Debug)]
pub struct Decider {
    view: NodeView,
    placement: Box<dyn placement::Policy>,
    /// Clients that wait, and were not thought about yet.
    waiting: Vec<u64>,
    /// Those about whom is thought as soon as the workers have answered.
    considered: Vec<u64>,
    crowd: Crowd,
}

/// Whether the loads of clients are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crowd {
    /// No GPU has several busy clients.
    No,
    /// One has, and they are to be looked at now.
    Noticed,
    /// They were, and are to be looked at again then.
    Until(Duration),
}

impl Decider {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(view: NodeView, placement: Box<dyn placement::Policy>) -> Self {
        Self { view, placement, waiting: Vec::new(), considered: Vec::new(), crowd: Crowd::No }
    }

    /// What is known of the node.
    #[must_use]
    pub fn view(&self) -> &NodeView {
        &self.view
    }

    /// Whoever waits from now on goes where this policy says.
    pub fn place_by(&mut self, placement: Box<dyn placement::Policy>) {
        self.placement = placement;
    }

    /// When the workers are to be asked next, if at all. What they say is to be heard as [`What::Reported`].
    #[must_use]
    pub fn asks_at(&self) -> Option<Duration> {
        match self.crowd {
            _ if !self.waiting.is_empty() => Some(self.view.now()),
            Crowd::No => None,
            Crowd::Noticed => Some(self.view.now()),
            Crowd::Until(at) => Some(at),
        }
    }

    /// They are asked now: who begins to wait from now on is not in their answers.
    pub fn ask(&mut self) {
        for client in self.waiting.drain(..) {
            if !self.considered.contains(&client) {
                self.considered.push(client);
            }
        }
    }

    /// Something happened. What is to be done now, in order.
    pub fn hear(&mut self, event: &Event) -> Vec<Decision> {
        self.view.apply(event);
        let has_choice = self.view.gpus().len() > 1;
        match event.what {
            What::Waiting { client } if has_choice && !self.waiting.contains(&client) => {
                self.waiting.extend(self.movable(client).map(|client| client.id));
            }
            What::ClientHome { client, .. } => return self.part(client).into_iter().collect(),
            What::Crowded { .. } if has_choice && self.crowd == Crowd::No => self.crowd = Crowd::Noticed,
            What::Reported { .. } => {
                let mut decisions = self.place();
                decisions.extend(self.spread());
                return decisions;
            }
            _ => {}
        }
        Vec::new()
    }

    fn movable(&self, client: u64) -> Option<&Client> {
        self.view.client(client).filter(|client| client.may_move(self.view.now(), STAY))
    }

    /// A client that has just said its home has hardly anything on its GPU: it goes at once, pinned or not.
    fn part(&mut self, id: u64) -> Option<Decision> {
        let client = self.view.client(id).filter(|client| !client.failed && client.moving_to.is_none())?;
        let to = apart(client.gpu, &self.view.places_for(client))?;
        let generation = client.generation;
        self.view.expect_move(id, to);
        Some(Decision { client: id, generation, to, why: Why::Apart })
    }

    /// Of those that wait, the one that must begin first is thought about first.
    fn place(&mut self) -> Vec<Decision> {
        let mut asking = std::mem::take(&mut self.considered);
        asking.sort_by_key(|&id| {
            let its = self.view.client(id).and_then(|client| Some((client.waiting_since?, client)));
            its.map(|(since, client)| due(since, client.rules.slo, client.figures.unwrap_or_default().turn()))
        });
        let mut decisions = Vec::new();
        for id in asking {
            let Some(client) = self.movable(id) else { continue };
            let Some(asker) = self.view.asker(client) else { continue };
            let (generation, gpus) = (client.generation, self.view.seen_by(client));
            if let Some(to) = self.placement.choose(asker, &gpus) {
                self.view.expect_move(id, to);
                decisions.push(Decision { client: id, generation, to, why: Why::Waiting });
            }
        }
        decisions
    }

    fn spread(&mut self) -> Vec<Decision> {
        let now = self.view.now();
        match self.crowd {
            Crowd::No => return Vec::new(),
            Crowd::Noticed => {
                self.crowd = Crowd::Until(now + Loads::WINDOW);
                return Vec::new();
            }
            Crowd::Until(at) if now < at => return Vec::new(),
            Crowd::Until(_) => {}
        }
        let (gpus, busy) = self.view.crowd();
        let mut decisions = Vec::new();
        for (client, to) in spread(&gpus, &busy) {
            // Of those that move at once, too.
            let Some(its) = self.view.client(client).filter(|its| self.view.keeps_apart(its, to)) else {
                continue;
            };
            let generation = its.generation;
            self.view.expect_move(client, to);
            decisions.push(Decision { client, generation, to, why: Why::Crowded });
        }
        let goes_on = self.view.loads().has_changed_within(now, YOUNG);
        self.crowd = if goes_on { Crowd::Until(now + Loads::WINDOW) } else { Crowd::No };
        decisions
    }
}

#[cfg(test)]
mod homes;
#[cfg(test)]
mod tests;
