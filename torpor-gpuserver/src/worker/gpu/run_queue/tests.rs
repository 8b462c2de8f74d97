use super::*;
use crate::policy::sharing::joins;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::num::NonZeroUsize;
use torpor_proto::layout::AddressRange;

fn link(client: u64) -> Arc<Link> {
    Arc::new(Link::new(client, "f", AddressRange { address: client << 32, bytes: 1 << 32 }))
}

fn take(turns: &Turns, link: &Arc<Link>) -> bool {
    turns.take(link, true, |limit, active| joins(limit, active, 0, || unreachable!("the limit is a number")))
}

#[test]
fn turns_are_taken_in_the_order_of_asking() {
    let turns = Turns::new(ActiveLimit::AtMost(NonZeroUsize::MIN));
    let [first, second, third] = [1, 2, 3].map(link);
    assert!(take(&turns, &first));
    assert!(!turns.is_contended());
    assert!(!take(&turns, &second) && !take(&turns, &third) && !take(&turns, &second));
    assert!(turns.is_contended());
    assert_eq!(turns.line(), [2, 3]);
    turns.give_up(1);
    assert!(!take(&turns, &third), "it is not the next one");
    assert!(take(&turns, &second));
    assert!(!take(&turns, &first), "whoever had a turn is behind those that wait");
    turns.give_up(2);
    assert!(take(&turns, &third));
    turns.give_up(3);
    assert!(take(&turns, &first));
    assert!(!turns.is_contended());
}

#[test]
fn who_is_tried_is_active_alone_until_it_has_done_again_what_it_did() {
    let turns = Turns::new(ActiveLimit::Auto);
    let [first, tried, other] = [1, 2, 3].map(link);
    tried.trial.begin();
    let take = |link| turns.take(link, false, |_, _| true);
    assert!(take(&first) && !take(&tried), "another one may have work");
    turns.give_up(1);
    assert!(take(&tried) && !take(&other));
    tried.trial.end();
    assert!(take(&other) && take(&first));
}

#[test]
fn who_is_due_first_is_first_and_of_equals_who_came_first() {
    let mut queue = Queue::default();
    for (client, came_ms) in [(1, 1000), (2, 80), (3, 1000), (4, 200), (5, 80)] {
        queue.line_up(Duration::from_millis(came_ms), link(client), false);
    }
    let line: Vec<_> = queue.waiting.iter().map(|waiting| waiting.link.client).collect();
    assert_eq!(line, [2, 5, 4, 1, 3]);
}

#[test]
fn an_objective_lets_a_client_overtake_those_that_have_none() {
    let (patient, urgent) = (link(1), link(2));
    urgent.slo_ms.store(80, Ordering::Relaxed);
    let at = Duration::from_millis;
    assert!(urgent.due(at(100)) < patient.due(at(0)));
    assert!(urgent.due(at(1000)) > patient.due(at(0)), "but not for ever");
}

#[test]
fn who_was_put_out_just_now_waits_for_the_others_turns_and_a_stranger_does_not() {
    let turns = Turns::new(ActiveLimit::AtMost(NonZeroUsize::MIN));
    let [first, second, stranger] = [1, 2, 3].map(link);
    let long = Duration::from_secs(9);
    assert!(take(&turns, &first));
    turns.give_up(1);
    assert!(take(&turns, &second) && !take(&turns, &first));
    assert!(turns.is_contended() && !turns.is_pressed(long));
    assert!(turns.is_pressed(Duration::ZERO), "where turns have no length");
    assert!(!take(&turns, &stranger) && turns.is_pressed(long));
    turns.give_up(3);
    assert!(!turns.is_pressed(long));
    turns.want_memory(2);
    assert!(turns.is_pressed(long), "nobody else can give it");
}

#[test]
fn who_asks_now_and_then_waits_for_nobodys_turn() {
    let turns = Turns::new(ActiveLimit::AtMost(NonZeroUsize::MIN));
    let [seldom, busy] = [1, 2].map(link);
    assert!(take(&turns, &seldom));
    turns.give_up(1);
    assert!(take(&turns, &busy));
    assert!(!turns.take(&seldom, false, |_, _| false));
    assert!(turns.is_pressed(Duration::from_secs(9)));
}

#[test]
fn a_place_in_the_line_can_be_given_up() {
    let turns = Turns::new("2".parse().expect("a number"));
    let [first, second, third, fourth] = [1, 2, 3, 4].map(link);
    assert!(take(&turns, &first) && take(&turns, &second));
    assert!(!take(&turns, &third) && !take(&turns, &fourth));
    turns.give_up(3);
    turns.give_up(1);
    assert!(take(&turns, &fourth));
    assert!(!turns.is_contended());
}

#[test]
fn nobody_overtakes_one_that_waits_for_more_room() {
    let turns = Turns::new(ActiveLimit::Auto);
    let [large, small] = [1, 2].map(link);
    assert!(!turns.take(&large, false, |_, _| false));
    assert!(!turns.take(&small, false, |_, _| true));
    assert!(turns.take(&large, false, |_, _| true) && turns.take(&small, false, |_, _| true));
}

#[test]
fn who_is_not_let_in_is_passed_over_and_whose_sibling_waits_for_it_is_before_all() {
    let (_ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let server = ServerSocket::new(theirs);
    let turns = Turns::new(ActiveLimit::AtMost(NonZeroUsize::MIN));
    let [active, shut, other] = [1, 2, 3].map(link);
    assert!(take(&turns, &active));
    turns.set_gate(&shut, 1, GateState::Shut, &server);
    assert!(!take(&turns, &shut));
    assert!(!turns.is_contended(), "nobody gives his turn up for it");
    assert!(!take(&turns, &other) && turns.is_contended());
    turns.give_up(1);
    assert!(take(&turns, &other));
    assert!(!take(&turns, &active));
    turns.set_gate(&shut, 2, GateState::Briefly, &server);
    turns.give_up(3);
    assert!(!take(&turns, &active) && take(&turns, &shut));
    assert!(shut.gate.is_brief() && !shut.gate.lets_in(), "once");
    turns.set_gate(&shut, 3, GateState::Once, &server);
    assert!(!shut.gate.lets_in(), "it has its turn already");
}

#[test]
fn who_is_short_of_memory_is_waited_for_like_one_that_waits_for_a_turn() {
    let turns = Turns::new(ActiveLimit::Auto);
    assert!(turns.take(&link(1), false, |_, _| true) && turns.take(&link(2), false, |_, _| true));
    turns.want_memory(1);
    turns.want_memory(1);
    assert!(turns.is_contended());
    turns.want_no_memory(1);
    assert!(!turns.is_contended());
    turns.want_memory(2);
    turns.give_up(2);
    assert!(!turns.is_contended());
}

#[test]
fn no_more_bring_memory_at_once_than_the_bus_has_use_for_and_who_has_its_own_passes_them() {
    let turns = Turns::new(ActiveLimit::Auto);
    let links: Vec<_> = (1..=7).map(link).collect();
    let take = |link| turns.take(link, false, |_, _| true);
    links[..6].iter().for_each(|link| link.is_away.store(true, Ordering::Relaxed));
    assert!(links[..BRINGING].iter().all(take));
    assert!(!take(&links[4]) && !take(&links[5]));
    assert!(!turns.is_contended(), "nobody's turn is in their way");
    assert!(take(&links[6]), "it needs nothing that they wait for");
    turns.has_come(1);
    assert!(!take(&links[5]) && take(&links[4]), "in the order of asking");
    turns.give_up(2);
    assert!(take(&links[5]));
    turns.has_come(7);
    assert!(!turns.is_contended());
}

#[test]
fn who_loses_its_memory_in_line_wakes_whoever_is_next_then() {
    let turns = Turns::new(ActiveLimit::Auto);
    let links: Vec<_> = (1..=6).map(link).collect();
    links[..BRINGING].iter().for_each(|link| link.is_away.store(true, Ordering::Relaxed));
    assert!(links[..BRINGING].iter().all(|link| turns.take(link, false, |_, _| true)));
    assert!(!turns.take(&links[4], false, |_, _| false) && !turns.take(&links[5], false, |_, _| true));
    links[4].is_away.store(true, Ordering::Relaxed);
    assert!(!turns.take(&links[4], false, |_, _| true));
    assert!(turns.take(&links[5], false, |_, _| true));
}

#[test]
fn whose_sibling_waits_for_it_does_not_wait_for_the_bus() {
    let (_ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let turns = Turns::new(ActiveLimit::Auto);
    let links: Vec<_> = (1..=5).map(link).collect();
    links.iter().for_each(|link| link.is_away.store(true, Ordering::Relaxed));
    assert!(links[..BRINGING].iter().all(|link| turns.take(link, false, |_, _| true)));
    assert!(!turns.take(&links[4], false, |_, _| true));
    turns.set_gate(&links[4], 1, GateState::Briefly, &ServerSocket::new(theirs));
    assert!(turns.take(&links[4], false, |_, _| true));
}
