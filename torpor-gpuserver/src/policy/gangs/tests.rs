use super::world::{CAPACITY, Op, World};
use super::*;
use crate::policy::event::Rules;
use crate::policy::topology::Topology;
use proptest::prelude::*;
use std::time::Duration;

/// A node with two gangs of two ranks each on the same two GPUs, whose memory has room for one of them.
fn two_gangs(has_gangs: bool, rounds: usize) -> World {
    let mut world = World::new(2, has_gangs, 7);
    // The first rank of one comes first, and the second of the other.
    for (function, begins) in [("a", [0, 5]), ("b", [5, 0])] {
        for (rank, begins) in begins.into_iter().enumerate() {
            let program = [Op::Collective, Op::Settle(1)].repeat(rounds);
            world.add((function, Some(rank as u32)), rank, 60, begins, program);
        }
    }
    world
}

#[test]
fn without_gangs_two_of_them_wait_for_each_other_for_ever_and_with_them_they_do_not() {
    assert!(two_gangs(false, 1).run(100_000).is_err());
    two_gangs(true, 1).run(100).unwrap();
    two_gangs(true, 50).run(10_000).unwrap();
}

#[test]
fn a_gang_that_always_has_work_ends_its_turn_for_another_one() {
    let mut world = World::new(2, true, 3);
    for rank in 0..2 {
        // One rank posts ahead of the other, and nobody ever waits.
        let program = [[Op::Kernel(rank as u64), Op::Collective, Op::Kernel(1)]; 2000].concat();
        world.add(("endless", Some(rank as u32)), rank, 60, 0, program);
        world.add(("short", Some(rank as u32)), rank, 60, 50, vec![Op::Collective]);
    }
    let is_done = |world: &World| world.clients.values().filter(|its| its.program.is_empty()).count() == 2;
    let served = (0..1000).find(|_| world.step() || is_done(&world));
    assert!(served.is_some());
    world.run(100_000).unwrap();
}

#[test]
fn ranks_that_have_nothing_to_do_with_each_other_end_their_turns_too() {
    let mut world = World::new(2, true, 3);
    for rank in 0..2 {
        world.add(("endless", Some(rank as u32)), rank, 60, rank as u64, vec![Op::Kernel(7); 3000]);
        world.add(("short", Some(rank as u32)), rank, 60, 50, vec![Op::Collective]);
    }
    let is_done = |world: &World| world.clients.values().filter(|its| its.program.is_empty()).count() == 2;
    let served = (0..2000).find(|_| world.step() || is_done(&world));
    assert!(served.is_some());
}

#[test]
fn ranks_of_one_gpu_get_past_a_client_that_waits_for_the_room_of_one_of_them() {
    let mut world = World::new(1, true, 5);
    for rank in 0..2 {
        world.add(("gang", Some(rank)), 0, 30, u64::from(rank) * 90, vec![Op::Collective; 200]);
    }
    world.add(("large", None), 0, 90, 10, vec![Op::Kernel(3); 100]);
    world.run(20_000).unwrap();
}

/// What is heard of events by a view and its gangs.
struct Node(Gangs, NodeView);

impl Node {
    fn new(gpus: usize) -> Self {
        let mut node = Self(Gangs::new(0), NodeView::new(gpus, Topology::default()));
        (0..gpus).for_each(|gpu| drop(node.hear(What::WorkerStarted { gpu, limit_bytes: CAPACITY })));
        node
    }

    fn hear(&mut self, what: What) -> Vec<(u64, Gate)> {
        let event = Event { at: Duration::ZERO, what };
        self.1.apply(&event);
        self.0.hear(&event, &self.1).into_iter().map(|word| (word.client, word.gate)).collect()
    }

    fn attach(
        &mut self,
        client: u64,
        function: &str,
        gpu: usize,
        home: u32,
        limit: Option<u64>,
    ) -> Vec<(u64, Gate)> {
        self.hear(What::ClientAttached { client, function: function.into(), gpu });
        let rules = Rules { memory_limit_bytes: limit, ..Rules::default() };
        let mut words = self.hear(What::ClientRuled { client, rules });
        words.extend(self.hear(What::ClientHome { client, home }));
        words
    }
}

#[test]
fn nothing_is_said_as_long_as_gangs_are_in_nobody_s_way() {
    let mut node = Node::new(4);
    assert_eq!(node.attach(1, "a", 0, 0, None), []);
    assert_eq!(node.attach(2, "a", 1, 1, None), []);
    assert_eq!(node.attach(3, "b", 2, 0, None), [], "on other GPUs");
    assert_eq!(node.attach(4, "b", 3, 1, None), []);
    assert_eq!(node.attach(5, "alone", 0, 0, None), [], "it has no sibling");
    assert_eq!(node.attach(6, "alone", 1, 0, None), [], "nor one with another home");
    for client in 1..7 {
        assert_eq!(node.hear(What::Waiting { client }), []);
    }
}

#[test]
fn gangs_with_room_together_by_what_they_may_allocate_are_in_nobody_s_way() {
    let mut node = Node::new(2);
    for (client, function) in [(1, "a"), (3, "b")] {
        assert_eq!(node.attach(client, function, 0, 0, Some(50)), []);
        assert_eq!(node.attach(client + 1, function, 1, 1, Some(50)), []);
    }
    node.attach(5, "c", 0, 0, Some(1));
    assert!(!node.attach(6, "c", 1, 1, Some(1)).is_empty(), "with three of them there is none");
}

#[test]
fn a_rank_that_begins_at_another_worker_is_told_its_gate() {
    let mut node = Node::new(2);
    node.attach(1, "a", 0, 0, None);
    node.attach(2, "a", 1, 1, None);
    assert_eq!(node.hear(What::SessionBegan { client: 2, is_shut: true }), [(2, Gate::Open)]);
}

#[test]
fn another_server_asks_who_has_a_turn_before_anybody_gets_one() {
    let mut node = Node::new(2);
    let mut words = Vec::new();
    for (client, function) in [(1, "a"), (3, "b")] {
        for (rank, home) in [(client, 0), (client + 1, 1)] {
            words.extend(node.attach(rank, function, home as usize, home, None));
            words.extend(node.hear(What::SessionBegan { client: rank, is_shut: false }));
        }
    }
    words.extend(node.hear(What::WorkerStarted { gpu: 0, limit_bytes: CAPACITY }));
    let last: BTreeMap<_, _> = words.into_iter().collect();
    assert!(last.values().all(|gate| *gate == Gate::Shut), "{last:?}");
}

#[test]
fn who_is_left_without_siblings_has_its_gate_open() {
    let mut node = Node::new(2);
    for (client, function) in [(1, "a"), (3, "b")] {
        node.attach(client, function, 0, 0, None);
        node.attach(client + 1, function, 1, 1, None);
    }
    assert_eq!(
        node.hear(What::ClientLeft { client: 4 }),
        [(1, Gate::Open), (2, Gate::Open), (3, Gate::Open)]
    );
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![(0..6_u64).prop_map(Op::Kernel), Just(Op::Collective), (0..8_u64).prop_map(Op::Settle),]
}

/// A function: how many ranks on which GPUs, when each begins, and what they do.
fn gang() -> impl Strategy<Value = (Vec<(usize, u64)>, Vec<Op>, u64)> {
    (prop::collection::vec((0..3_usize, 0..40_u64), 2..4), prop::collection::vec(op(), 1..25), 20..101_u64)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 100, ..ProptestConfig::default() })]

    /// Whatever gangs there are, wherever their ranks are, whenever they come, and beside whomever: all end, and no two gangs without room
    /// together ever have turns.
    #[test]
    fn nobody_waits_for_ever(
        gpus in 1..4_usize, gangs in prop::collection::vec(gang(), 1..4), repeats in 1..12_usize, delays: u64,
        others in prop::collection::vec((0..3_usize, 0..60_u64, 1..101_u64, prop::collection::vec(0..9_u64, 1..30)), 0..4),
    ) {
        let mut world = World::new(gpus, true, delays);
        for (at, (ranks, ops, share)) in gangs.iter().enumerate() {
            let function = format!("gang{at}");
            let on = |gpu: usize| ranks.iter().filter(|(at, _)| at % gpus == gpu).count() as u64;
            let most = (0..gpus).map(on).max().unwrap_or(1);
            for (home, &(gpu, begins)) in ranks.iter().enumerate() {
                // Ranks differ in what they do between two collectives.
                let own = |op: &Op| match *op {
                    Op::Kernel(lasts) => Op::Kernel(lasts * home as u64),
                    op => op,
                };
                let program = ops.iter().map(own).collect::<Vec<_>>().repeat(repeats);
                world.add((&function, Some(home as u32)), gpu % gpus, CAPACITY / most * share / 100, begins, program);
            }
        }
        for (at, (gpu, begins, needs, kernels)) in others.iter().enumerate() {
            let program = kernels.iter().map(|&lasts| Op::Kernel(lasts)).collect();
            world.add((&format!("other{at}"), None), gpu % gpus, *needs, *begins, program);
        }
        world.run(30_000).map_err(TestCaseError::fail)?;
    }
}
