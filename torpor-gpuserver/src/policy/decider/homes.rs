//! What the decider does with homes: ranks of one function are apart wherever they begin, and stay so.

use super::*;
use crate::policy::event::{Figures, Phase, Rules};
use crate::policy::placement::Placement;
use crate::policy::topology::Topology;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A node that does what is decided.
struct Node {
    decider: Decider,
    at: BTreeMap<u64, usize>,
    homes: BTreeMap<u64, u32>,
    gpus: usize,
    now: Duration,
}

impl Node {
    fn new(gpus: usize) -> Self {
        let view = NodeView::new(gpus, Topology::default());
        let decider = Decider::new(view, Placement::MostFree.policy(1));
        let (at, homes, now) = (BTreeMap::new(), BTreeMap::new(), Duration::ZERO);
        let mut node = Self { decider, at, homes, gpus, now };
        for gpu in 0..gpus {
            node.hear(What::WorkerStarted { gpu, limit_bytes: 80 << 30 });
        }
        node
    }

    /// Whatever is decided happens.
    fn hear(&mut self, what: What) -> usize {
        let decisions = self.decider.hear(&Event { at: self.now, what });
        for &Decision { client, generation, to, why } in &decisions {
            let from = self.at.insert(client, to).unwrap();
            let took = Duration::ZERO;
            self.decider.hear(&Event {
                at: self.now,
                what: What::Moved { client, from, to, why, took, generation: generation + 2 },
            });
        }
        decisions.len()
    }

    fn attach(&mut self, client: u64, function: &str, gpu: usize, home: Option<u32>) {
        self.hear(What::ClientAttached { client, function: function.into(), gpu });
        self.at.insert(client, gpu);
        if let Some(home) = home {
            self.homes.insert(client, home);
            self.hear(What::ClientHome { client, home });
        }
    }

    /// Everybody waits for a turn, and policies think about all of them.
    fn everybody_waits(&mut self) {
        self.now += Duration::from_secs(5);
        for &client in self.at.clone().keys() {
            self.hear(What::Waiting { client });
        }
        self.decider.ask();
        let figures = |gpu| {
            let its = self.at.iter().filter(move |(_, at)| **at == gpu);
            let waits = |(&client, _): (&u64, &usize)| Figures {
                client,
                phase: Phase::Waiting,
                busy: true,
                allocated_bytes: 1 << 30,
                turns: 1,
                worked: Duration::from_millis(20),
                ..Figures::default()
            };
            Some(its.map(waits).collect())
        };
        let figures = (0..self.gpus).map(figures).collect();
        self.hear(What::Reported { figures });
    }

    fn gpus_of(&self, clients: impl IntoIterator<Item = u64>) -> Vec<usize> {
        clients.into_iter().map(|client| self.at[&client]).collect()
    }
}

#[test]
fn two_ranks_that_begin_on_one_gpu_are_on_two_as_soon_as_the_second_says_its_home() {
    let mut node = Node::new(2);
    node.attach(1, "f", 0, Some(0));
    node.attach(2, "f", 0, Some(1));
    assert_eq!(node.gpus_of([1, 2]), [0, 1]);
}

#[test]
fn other_functions_and_processes_of_the_same_home_are_no_strangers() {
    let mut node = Node::new(2);
    node.attach(1, "f", 0, Some(0));
    node.attach(2, "g", 0, Some(1));
    node.attach(3, "f", 0, Some(0));
    node.attach(4, "f", 0, None);
    assert_eq!(node.gpus_of(1..=4), [0; 4]);
}

#[test]
fn a_pinned_function_is_apart_too_and_one_that_was_sent_to_a_gpu_is_not() {
    let mut node = Node::new(2);
    for (client, gpu) in [(1, None), (2, None), (3, Some(0)), (4, Some(0))] {
        let function = if client < 3 { "f" } else { "g" };
        node.attach(client, function, 0, None);
        node.hear(What::ClientRuled { client, rules: Rules { pinned: true, gpu, ..Rules::default() } });
    }
    for client in 1..=4 {
        node.hear(What::ClientHome { client, home: u32::from(client % 2 == 0) });
    }
    assert_eq!(node.gpus_of(1..=4), [0, 1, 0, 0]);
}

#[test]
fn a_gpu_that_serves_nobody_gets_no_rank() {
    let mut node = Node::new(2);
    node.hear(What::WorkerLost { gpu: 1, reason: String::new() });
    node.attach(1, "f", 0, Some(0));
    node.attach(2, "f", 0, Some(1));
    assert_eq!(node.gpus_of([1, 2]), [0, 0], "they share what there is");
}

proptest! {
    /// With a process for each home, no two are on one GPU as long as there are as many, wherever they began; and what waiting makes
    /// policies do leaves it so.
    #[test]
    fn ranks_are_apart_and_stay_so(
        gpus in 1..9_usize, ranks in prop::collection::vec(0..8_usize, 1..9), others in prop::collection::vec(0..8_usize, 0..20),
    ) {
        let mut node = Node::new(gpus);
        for (at, gpu) in others.iter().enumerate() {
            node.attach(100 + at as u64, &format!("g{at}"), gpu % gpus, None);
        }
        for (rank, gpu) in ranks.iter().enumerate() {
            node.attach(rank as u64, "f", gpu % gpus, Some(rank as u32));
        }
        for _ in 0..3 {
            let mut on = vec![0; gpus];
            node.gpus_of(0..ranks.len() as u64).into_iter().for_each(|gpu| on[gpu] += 1);
            let (most, fewest) = (on.iter().max().unwrap(), on.iter().min().unwrap());
            if ranks.len() <= gpus {
                prop_assert!(*most <= 1, "{on:?}");
            } else {
                prop_assert!(*fewest >= 1, "{on:?}");
            }
            node.everybody_waits();
        }
    }

    /// Several processes may have one home: a move never brings one to more strangers than it had.
    #[test]
    fn no_move_brings_ranks_together(
        gpus in 2..5_usize, clients in prop::collection::vec((0..4_usize, 0..3_u32, 0..2_u8), 1..20), rounds in 1..4_usize,
    ) {
        let mut node = Node::new(gpus);
        let function = |of: u8| format!("f{of}");
        for (client, &(gpu, home, of)) in clients.iter().enumerate() {
            node.attach(client as u64, &function(of), gpu % gpus, Some(home));
        }
        let strangers = |node: &Node| -> usize {
            let pairs = (0..clients.len()).flat_map(|one| (0..one).map(move |other| (one, other)));
            pairs.filter(|&(one, other)| {
                let ((_, its, of), (_, theirs, whose)) = (clients[one], clients[other]);
                of == whose && its != theirs && node.at[&(one as u64)] == node.at[&(other as u64)]
            }).count()
        };
        let before = strangers(&node);
        for _ in 0..rounds {
            node.everybody_waits();
        }
        prop_assert!(strangers(&node) <= before);
    }
}
