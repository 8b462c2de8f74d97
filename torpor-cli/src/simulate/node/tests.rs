use super::*;
use crate::load_test::record::Outcome;
use crate::simulate::profile::Profile;
use clap::ValueEnum;
use proptest::prelude::*;

fn work<'a>(profile: &'a Profile, models: &[&str], requests: &[(u64, usize)]) -> Work<'a> {
    let functions = models.iter().enumerate().map(|(at, model)| Function {
        name: format!("f{at}").into(),
        model: profile.model(model).unwrap(),
        slo: Duration::from_millis(100),
    });
    let mut requests: Vec<Request> =
        requests.iter().map(|&(ms, function)| Request { at: Duration::from_millis(ms), function }).collect();
    requests.sort_by_key(|request| request.at);
    Work {
        functions: functions.collect(),
        requests,
        patience: Duration::from_secs(60),
        beside: Duration::ZERO,
        percentile: 0.98,
    }
}

fn policies(placement: Placement, gpus: usize) -> Policies {
    let (order, eviction) = (Policy::Fifo, Eviction::Lru);
    Policies { order, placement, eviction, max_running: gpus, seed: 1 }
}

fn run(profile: &Profile, work: &Work<'_>, placement: Placement) -> (Vec<f64>, Tally) {
    let policies = policies(placement, profile.topology.gpus.len());
    let (records, tally) = Node::new(work, profile, policies).run();
    (records.iter().map(|record| record.latency_ms.round()).collect(), tally)
}

#[test]
fn the_first_request_swaps_and_the_next_is_warm() {
    let profile = Profile::find("v100x1").unwrap();
    let work = work(&profile, &["resnet152"], &[(0, 0), (100, 0)]);
    let (latencies, tally) = run(&profile, &work, Placement::MostFree);
    assert_eq!(latencies, [25.0, 19.0]);
    assert_eq!((tally.swaps, tally.evictions, tally.moves), (1, 0, 0));
}

#[test]
fn inferences_differ_as_the_profile_s_spread_says() {
    let mut profile = Profile::find("v100x1").unwrap();
    profile.models.get_mut("resnet152").unwrap().spread = vec![1.0, 2.0];
    let requests: Vec<_> = (0..40).map(|at| (100 * at, 0)).collect();
    let (latencies, _) = run(&profile, &work(&profile, &["resnet152"], &requests), Placement::MostFree);
    let warm = &latencies[1..];
    assert!(warm.contains(&19.0) && warm.contains(&38.0), "{warm:?}");
    assert!(warm.iter().all(|latency| [19.0, 38.0].contains(latency)), "{warm:?}");
}

#[test]
fn a_gpu_that_has_much_to_do_does_each_in_less_time() {
    let mut profile = Profile::find("v100x1").unwrap();
    profile.models.get_mut("resnet152").unwrap().busy_ms = Some(9.0);
    let seldom: Vec<_> = (0..20).map(|at| (5000 * at, 0)).collect();
    let (latencies, _) = run(&profile, &work(&profile, &["resnet152"], &seldom), Placement::MostFree);
    assert!(latencies[1..].iter().all(|&latency| latency == 19.0), "{latencies:?}");
    let often = [(0, 0); 200];
    let (latencies, _) = run(&profile, &work(&profile, &["resnet152"], &often), Placement::MostFree);
    let took: Vec<f64> = latencies.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(took[0] > 15.0 && took[100..].iter().all(|&ms| (8.0..=10.0).contains(&ms)), "{took:?}");
}

#[test]
fn a_move_takes_what_the_profile_says_whatever_the_server_expects() {
    let mut profile = Profile::find("v100x4").unwrap();
    let slowest = |profile: &Profile| {
        let work = work(profile, &["resnet152"; 5], &[(0, 0), (1, 4)]);
        run(profile, &work, Placement::MostFree).0.into_iter().fold(0.0, f64::max)
    };
    assert_eq!(slowest(&profile), 40.0);
    profile.moves_ms = Some(70.0);
    assert_eq!(slowest(&profile), 70.0 + 25.0);
}

#[test]
fn what_a_request_takes_beside_its_turn_holds_nobody_up() {
    let profile = Profile::find("v100x1").unwrap();
    let requests = [(0, 0), (100, 0), (101, 0)];
    let work = Work { beside: Duration::from_millis(4), ..work(&profile, &["resnet152"], &requests) };
    assert_eq!(run(&profile, &work, Placement::MostFree).0, [29.0, 23.0, 41.0]);
}

#[test]
fn whoever_waits_for_a_busy_gpu_goes_to_an_idle_one() {
    let profile = Profile::find("v100x4").unwrap();
    // Functions 0 and 4 are both on the first GPU.
    let work = work(&profile, &["resnet152"; 5], &[(0, 0), (1, 4)]);
    let (latencies, tally) = run(&profile, &work, Placement::MostFree);
    assert_eq!(tally.moves, 1);
    assert!(latencies[1] < 44.0, "{latencies:?}");
}

#[test]
fn two_over_one_link_slow_each_other_unless_the_policy_knows_links() {
    let profile = Profile::find("v100x4").unwrap();
    let work = work(&profile, &["resnet152"; 5], &[(0, 0), (0, 4)]);
    let (same_link, _) = run(&profile, &work, Placement::Fifo);
    let (other_link, _) = run(&profile, &work, Placement::Interference);
    assert_eq!(same_link.iter().copied().fold(0.0, f64::max), 41.0);
    assert_eq!(other_link, [25.0, 25.0]);
}

#[test]
fn where_more_comes_than_can_be_done_most_of_what_is_done_is_in_time() {
    let profile = Profile::find("v100x1").unwrap();
    // Three for each two that can be done, of 19 ms, for half a minute.
    let requests: Vec<_> = (0..2370).map(|at| (at * 38 / 3, at as usize % 4)).collect();
    let work = work(&profile, &["resnet152"; 4], &requests);
    let policies = Policies { order: Policy::Deadline, ..policies(Placement::Deadline, 1) };
    let (records, _) = Node::new(&work, &profile, policies).run();
    let in_time = records.iter().filter(|record| record.latency_ms <= 100.0).count();
    assert!(in_time > 1000, "{in_time} of {}", records.len());
}

#[test]
fn a_client_that_moves_brings_its_memory_from_the_gpu_that_it_was_on() {
    let profile = Profile::find("v100x2").unwrap();
    // Functions 0 and 2 are both on the first GPU; BERT-large takes 26.5 ms, 136 from the host, 56 from the other GPU.
    let work = work(&profile, &["bert_large_qa"; 3], &[(0, 0), (300, 2), (600, 0), (600, 2)]);
    let (latencies, tally) = run(&profile, &work, Placement::MostFree);
    assert_eq!(latencies, [136.0, 136.0, 27.0, 56.0]);
    assert_eq!((tally.moves, tally.swaps), (1, 3));
    let mut apart = profile.clone();
    apart.topology.peers.clear();
    assert_eq!(run(&apart, &work, Placement::MostFree).0[3], 137.0);
}

#[test]
fn what_a_client_left_goes_like_that_of_any_other() {
    let mut profile = Profile::find("v100x2").unwrap();
    profile.gpu_limit.0 = 5 * profile.model("bert_large_qa").unwrap().bytes / 2;
    profile.topology.gpus.iter_mut().for_each(|path| path.switch = None);
    // Functions 0, 2 and 4 are on the first GPU. The last one comes while the second one's memory is on its way to the other GPU, and that
    // was used longest ago.
    let requests = [(0, 0), (300, 2), (600, 0), (600, 2), (601, 4)];
    let work = work(&profile, &["bert_large_qa"; 5], &requests);
    let policies = Policies { max_running: 3, ..policies(Placement::MostFree, 2) };
    let (records, tally) = Node::new(&work, &profile, policies).run();
    assert_eq!((tally.moves, tally.evictions), (1, 1));
    let second = records[3].latency_ms;
    // 26 ms of its 56 from the other GPU, and the rest from the host.
    assert!((90.0..110.0).contains(&second), "{second}");
}

#[test]
fn who_was_used_longest_ago_leaves_for_others() {
    let mut profile = Profile::find("v100x1").unwrap();
    profile.gpu_limit.0 = 2 * profile.model("resnet152").unwrap().bytes;
    let work = work(&profile, &["resnet152"; 3], &[(0, 0), (100, 1), (200, 2), (300, 1), (400, 0)]);
    let (latencies, tally) = run(&profile, &work, Placement::MostFree);
    assert_eq!(latencies, [25.0, 25.0, 25.0, 19.0, 25.0]);
    assert_eq!(tally.evictions, 2);
}

#[test]
fn a_request_that_waits_beyond_its_patience_is_a_time_out() {
    let profile = Profile::find("v100x1").unwrap();
    let requests: Vec<_> = (0..50).map(|_| (0, 0)).collect();
    let work = Work { patience: Duration::from_millis(500), ..work(&profile, &["resnet152"], &requests) };
    let policies = policies(Placement::MostFree, 1);
    let (records, _) = Node::new(&work, &profile, policies).run();
    assert_eq!(records.len(), 50);
    let late = records.iter().filter(|record| record.outcome == Outcome::Timeout).count();
    // 25 ms and then 19 ms each: 26 end within 500 ms.
    assert_eq!(late, 50 - 26);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_request_ends_once_and_none_is_faster_than_its_work(
        requests in prop::collection::vec((0..3000_u64, 0..12_usize), 1..120),
        placement in prop::sample::select(Placement::value_variants()),
        eviction in prop::sample::select(Eviction::value_variants()),
        order in prop::sample::select(Policy::value_variants()),
        gpus in 1..5_usize,
    ) {
        let mut profile = Profile::find(&format!("v100x{gpus}")).unwrap();
        profile.gpu_limit.0 = 3 * profile.model("bert_large_qa").unwrap().bytes / 2;
        let models = ["resnet152", "bert_large_qa", "resnet50"];
        let models: Vec<_> = models.iter().copied().cycle().take(12).collect();
        let work = work(&profile, &models, &requests);
        let policies = Policies { order, placement, eviction, max_running: gpus, seed: 1 };
        let node = || Node::new(&work, &profile, policies).run();
        let (records, tally) = node();
        prop_assert_eq!(records.len(), requests.len());
        for (record, request) in records.iter().zip(&work.requests) {
            let warm_ms = work.functions[request.function].model.warm_ms;
            prop_assert!(record.latency_ms >= warm_ms - 1e-6, "{record:?}");
        }
        let works: f64 = work.requests.iter().map(|one| work.functions[one.function].model.warm_ms).sum();
        let busy: f64 = tally.busy.iter().map(|busy| 1e3 * busy.as_secs_f64()).sum();
        prop_assert!(busy >= works - 1e-3 && busy <= 1e3 * gpus as f64 * tally.length.as_secs_f64() + 1e-3);
        prop_assert_eq!(&node().0, &records, "the same again");
    }
}
