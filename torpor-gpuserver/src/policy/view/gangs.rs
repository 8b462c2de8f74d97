//! The node as [gangs](crate::policy::gangs) see it: whose ranks are where, and which of them have room together.

use crate::policy::view::{Client, NodeView};
use std::sync::Arc;

impl NodeView {
    /// Whether processes of a function use different devices of it.
    #[must_use]
    pub fn is_gang(&self, function: &str) -> bool {
        let mut homes = self.ranks(function).map(|rank| rank.home);
        let first = homes.next();
        homes.any(|home| Some(home) != first)
    }

    /// Whether several ranks of a function are on a GPU.
    #[must_use]
    pub fn shares(&self, function: &str, gpu: usize) -> bool {
        self.ranks(function).filter(|rank| rank.is_at(gpu)).nth(1).is_some()
    }

    /// Whether two functions have ranks on one GPU.
    #[must_use]
    pub fn meet(&self, one: &str, other: &str) -> bool {
        (0..self.gpus.len()).any(|gpu| self.is_at(one, gpu) && self.is_at(other, gpu))
    }

    /// Whether a function's ranks have room on each GPU where any of the others has ranks, beside all of these and all that is pinned: as
    /// much as each may allocate.
    #[must_use]
    pub fn has_room_beside(&self, function: &str, others: &[Arc<str>]) -> bool {
        let are_others_at = |gpu| others.iter().any(|other| **other != *function && self.is_at(other, gpu));
        let crowded = (0..self.gpus.len()).filter(|&gpu| self.is_at(function, gpu) && are_others_at(gpu));
        let counts = |client: &&Client| {
            let is_rank =
                client.home.is_some() && (*client.function == *function || others.contains(&client.function));
            is_rank || client.rules.pinned
        };
        crowded.into_iter().all(|gpu| {
            let there =
                self.clients.values().filter(|client| !client.failed && client.is_at(gpu)).filter(counts);
            let limits = there.map(|client| client.rules.memory_limit_bytes.unwrap_or(u64::MAX));
            limits.fold(0, u64::saturating_add) <= self.gpus[gpu].limit_bytes
        })
    }

    /// Whether another function has ranks on a GPU that would have their turns with a client's in one line.
    pub(super) fn has_rivals(&self, client: &Client, gpu: usize) -> bool {
        client.home.is_some()
            && self.is_gang(&client.function)
            && self.clients.values().any(|other| {
                other.home.is_some()
                    && !other.failed
                    && other.is_at(gpu)
                    && other.function != client.function
                    && self.is_gang(&other.function)
            })
    }

    fn ranks(&self, function: &str) -> impl Iterator<Item = &Client> {
        self.clients
            .values()
            .filter(move |client| *client.function == *function && client.home.is_some() && !client.failed)
    }

    fn is_at(&self, function: &str, gpu: usize) -> bool {
        self.ranks(function).any(|rank| rank.is_at(gpu))
    }
}

impl Client {
    /// Whether it is on a GPU, or on its way there.
    fn is_at(&self, gpu: usize) -> bool {
        self.gpu == gpu || self.moving_to == Some(gpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::event::{Event, Rules, What};
    use crate::policy::topology::Topology;
    use std::time::Duration;

    /// Five GPUs with 100 bytes each, and ranks: whose, where, with which home and limit.
    fn view(ranks: &[(&str, usize, u32, u64)]) -> NodeView {
        let mut view = NodeView::new(5, Topology::default());
        let mut happens = |what| view.apply(&Event { at: Duration::ZERO, what });
        (0..5).for_each(|gpu| happens(What::WorkerStarted { gpu, limit_bytes: 100 }));
        for (client, &(function, gpu, home, limit)) in (0..).zip(ranks) {
            happens(What::ClientAttached { client, function: function.into(), gpu });
            let rules = Rules { memory_limit_bytes: Some(limit), ..Rules::default() };
            happens(What::ClientRuled { client, rules });
            happens(What::ClientHome { client, home });
        }
        view
    }

    #[test]
    fn no_policy_brings_a_rank_to_another_gang_s_gpu() {
        let view =
            view(&[("a", 0, 0, 60), ("a", 1, 1, 60), ("b", 2, 0, 60), ("b", 3, 1, 60), ("alone", 4, 0, 60)]);
        let rank = view.client(0).unwrap();
        assert_eq!([1, 2, 3, 4].map(|gpu| view.keeps_apart(rank, gpu)), [false, false, false, true]);
        assert!(view.keeps_apart(view.client(4).unwrap(), 0), "it has no siblings");
    }

    #[test]
    fn gangs_have_room_together_if_all_that_they_may_allocate_has_on_each_gpu_that_they_share() {
        let view = view(&[
            ("a", 0, 0, 50),
            ("a", 1, 1, 50),
            ("b", 1, 0, 50),
            ("b", 2, 1, 90),
            ("c", 2, 0, 20),
            ("c", 3, 1, 20),
        ]);
        let names = |names: &[&str]| names.iter().map(|&name| Arc::from(name)).collect::<Vec<_>>();
        assert!(view.has_room_beside("a", &names(&["b", "c"])));
        assert!(!view.has_room_beside("b", &names(&["a", "c"])));
        assert!(view.meet("b", "c") && !view.meet("a", "c"));
    }
}
