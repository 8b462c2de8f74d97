use super::*;
use crate::policy::event::{Figures, Phase, Rules};
use crate::policy::placement::Placement;
use crate::policy::topology::Topology;
use clap::ValueEnum;
use proptest::prelude::*;
use std::time::Instant;

const GIB: u64 = 1 << 30;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A node whose time goes on with what happens.
struct Node {
    decider: Decider,
    now: Duration,
    gpus: usize,
    figures: Vec<(usize, Figures)>,
}

impl Node {
    fn new(gpus: usize, placement: Placement) -> Self {
        let view = NodeView::new(gpus, Topology::default());
        let decider = Decider::new(view, placement.policy(1));
        let mut node = Self { decider, now: Duration::ZERO, gpus, figures: Vec::new() };
        for gpu in 0..gpus {
            node.hear(What::WorkerStarted { gpu, limit_bytes: 80 * GIB });
        }
        node
    }

    fn hear(&mut self, what: What) -> Vec<Decision> {
        self.decider.hear(&Event { at: self.now, what })
    }

    /// Clients are counted from 0.
    fn attach(&mut self, gpu: usize, figures: Figures) -> u64 {
        let client = self.figures.len() as u64;
        self.hear(What::ClientAttached { client, function: format!("f{client}").into(), gpu });
        self.figures.push((gpu, Figures { client, ..figures }));
        client
    }

    /// Everybody is asked, and answers.
    fn report(&mut self) -> Vec<Decision> {
        self.decider.ask();
        let its = |gpu| self.figures.iter().filter(move |(at, _)| *at == gpu).map(|(_, figures)| *figures);
        let figures = (0..self.gpus).map(|gpu| Some(its(gpu).collect())).collect();
        self.hear(What::Reported { figures })
    }

    fn moves(decisions: &[Decision]) -> Vec<(u64, usize)> {
        decisions.iter().map(|decision| (decision.client, decision.to)).collect()
    }
}

fn with(phase: Phase) -> Figures {
    let busy = phase != Phase::Idle;
    Figures {
        phase,
        busy,
        allocated_bytes: GIB,
        resident_bytes: GIB,
        turns: 1,
        worked: ms(20),
        ..Figures::default()
    }
}

#[test]
fn two_that_wait_do_not_go_to_the_same_idle_gpu() {
    let mut node = Node::new(3, Placement::MostFree);
    node.attach(0, with(Phase::Active));
    let waiting = [node.attach(0, with(Phase::Waiting)), node.attach(0, with(Phase::Waiting))];
    assert_eq!(node.decider.asks_at(), None);
    for client in waiting {
        assert_eq!(node.hear(What::Waiting { client }), [], "nothing is known of the others yet");
    }
    assert_eq!(node.decider.asks_at(), Some(node.now));
    assert_eq!(Node::moves(&node.report()), [(1, 1), (2, 2)]);
    assert_eq!(node.decider.asks_at(), None);
    assert_eq!(node.report(), [], "they are on their way");
}

#[test]
fn another_policy_sends_those_who_wait_from_then_on() {
    let mut node = Node::new(3, Placement::MostFree);
    node.attach(0, with(Phase::Active));
    node.attach(1, with(Phase::Idle));
    let client = node.attach(0, with(Phase::Waiting));
    node.hear(What::Waiting { client });
    node.decider.place_by(Placement::Fifo.policy(1));
    assert_eq!(
        Node::moves(&node.report()),
        [(client, 1)],
        "the first idle one, and not the one with most free memory"
    );
}

#[test]
fn whose_deadline_is_first_goes_first() {
    let mut node = Node::new(2, Placement::MostFree);
    node.attach(0, with(Phase::Active));
    let (patient, urgent) = (node.attach(0, with(Phase::Waiting)), node.attach(0, with(Phase::Waiting)));
    let rules = Rules { slo: Some(ms(80)), ..Rules::default() };
    node.hear(What::ClientRuled { client: urgent, rules });
    node.hear(What::Waiting { client: patient });
    node.now = ms(100);
    node.hear(What::Waiting { client: urgent });
    assert_eq!(Node::moves(&node.report()), [(urgent, 1)]);
}

#[test]
fn a_decision_names_the_picture_that_it_was_made_of() {
    let mut node = Node::new(2, Placement::MostFree);
    node.attach(0, with(Phase::Active));
    let client = node.attach(0, with(Phase::Waiting));
    let decide = |node: &mut Node| {
        node.hear(What::Waiting { client });
        node.report().first().map(|decision| decision.generation)
    };
    assert_eq!(decide(&mut node), Some(0));
    node.hear(What::MoveBegan { client, to: 1, why: Why::Waiting, generation: 1 });
    assert_eq!(decide(&mut node), None, "it moves");
    let reason = "it has its turn".to_owned();
    node.hear(What::Stayed { client, to: 1, why: Why::Waiting, reason, generation: 2 });
    assert_eq!(decide(&mut node), None, "it has just been asked in vain");
    node.now = STAY;
    // Told late, of a decision that was out of date.
    let reason = "it was moved meanwhile".to_owned();
    node.hear(What::Stayed { client, to: 1, why: Why::Waiting, reason, generation: 0 });
    node.now = 2 * STAY;
    assert_eq!(decide(&mut node), Some(2));
}

#[test]
fn who_may_not_move_or_is_gone_is_not_thought_about() {
    let mut node = Node::new(2, Placement::MostFree);
    node.attach(0, with(Phase::Active));
    let (fixed, pinned) = (Figures { fixed: true, ..with(Phase::Waiting) }, with(Phase::Waiting));
    let (fixed, pinned, gone) = (node.attach(0, fixed), node.attach(0, pinned), node.attach(0, pinned));
    let failed = node.attach(0, with(Phase::Waiting));
    node.hear(What::ClientRuled { client: pinned, rules: Rules { pinned: true, ..Rules::default() } });
    node.hear(What::ClientFailed { client: failed, reason: String::new() });
    for client in [fixed, pinned, gone, failed] {
        node.hear(What::Waiting { client });
    }
    node.hear(What::ClientLeft { client: gone });
    assert_eq!(node.report(), []);
}

#[test]
fn a_gpu_that_does_not_answer_or_lost_its_worker_gets_nobody() {
    let mut node = Node::new(2, Placement::MostFree);
    node.attach(0, with(Phase::Active));
    let client = node.attach(0, with(Phase::Waiting));
    node.hear(What::Waiting { client });
    node.decider.ask();
    let figures = node.figures.iter().map(|(_, figures)| *figures).collect();
    assert_eq!(node.hear(What::Reported { figures: vec![Some(figures), None] }), []);
    node.hear(What::WorkerLost { gpu: 1, reason: String::new() });
    node.hear(What::Waiting { client });
    assert_eq!(node.report(), []);
    node.hear(What::WorkerStarted { gpu: 1, limit_bytes: 80 * GIB });
    node.hear(What::Waiting { client });
    assert_eq!(Node::moves(&node.report()), [(client, 1)]);
    node.hear(What::ClientFailed { client, reason: "its GPU's worker died".to_owned() });
    node.now = ms(5000);
    node.hear(What::Waiting { client });
    assert_eq!(node.report(), []);
}

#[test]
fn a_crowd_is_looked_at_twice_and_spread_once_it_is_known_who_works() {
    let mut node = Node::new(2, Placement::MostFree);
    let small = Figures { allocated_bytes: GIB / 32, resident_bytes: GIB / 32, ..with(Phase::Active) };
    for _ in 0..4 {
        node.attach(0, small);
    }
    node.hear(What::Crowded { gpu: 0 });
    assert_eq!(node.decider.asks_at(), Some(node.now));
    assert_eq!(node.report(), []);
    for look in 1..=3 {
        assert_eq!(node.decider.asks_at(), Some(ms(100 * look)));
        node.now = ms(100 * look);
        node.figures.iter_mut().for_each(|(_, figures)| figures.worked += ms(100));
        let decisions = node.report();
        if !decisions.is_empty() {
            assert!(decisions.iter().all(|decision| (decision.to, decision.why) == (1, Why::Crowded)));
            return assert_eq!(decisions.len(), 2);
        }
    }
    panic!("nobody goes");
}

proptest! {
    #[test]
    fn every_decision_can_be_carried_out(
        clients in prop::collection::vec((0..4_usize, 0..3_u8, 0..100_u64, any::<[bool; 3]>(), 0..60_u64), 1..40),
        placement in prop::sample::select(Placement::value_variants()),
    ) {
        let mut node = Node::new(4, placement);
        for (gpu, phase, gib, [fixed, pinned, busy], worked) in clients {
            let phase = [Phase::Idle, Phase::Waiting, Phase::Active][usize::from(phase)];
            let bytes = gib * GIB;
            let figures = Figures {
                fixed,
                busy,
                worked: ms(worked),
                allocated_bytes: bytes,
                resident_bytes: bytes / 2,
                ..with(phase)
            };
            let client = node.attach(gpu, figures);
            node.hear(What::ClientRuled { client, rules: Rules { pinned, ..Rules::default() } });
            if phase == Phase::Waiting {
                node.hear(What::Waiting { client });
            }
        }
        let decisions = node.report();
        let mut moved = std::collections::HashSet::new();
        for Decision { client, to, .. } in decisions {
            let (from, figures) = node.figures[client as usize];
            prop_assert!(moved.insert(client) && to != from && !figures.fixed);
            prop_assert!(figures.phase == Phase::Waiting && figures.allocated_bytes <= 80 * GIB);
        }
    }
}

/// Says how long a decision takes; the bar is 50 µs in a release build.
#[test]
fn a_decision_for_a_thousand_functions_on_eight_gpus() {
    const DECISIONS: u32 = 200;
    for placement in Placement::value_variants() {
        let mut node = Node::new(8, *placement);
        for client in 0..1000 {
            node.attach(client % 8, with(if client < 8 { Phase::Active } else { Phase::Idle }));
        }
        let client = node.attach(0, with(Phase::Waiting));
        node.hear(What::Waiting { client });
        node.report();
        let mut policy = placement.policy(1);
        let asking = node.decider.view().client(client).unwrap();
        let began = Instant::now();
        for _ in 0..DECISIONS {
            let asker = node.decider.view().asker(asking).unwrap();
            std::hint::black_box(policy.choose(asker, &node.decider.view().seen_by(asking)));
        }
        println!("{placement:?}: {:.1?} a decision", began.elapsed() / DECISIONS);
    }
}
