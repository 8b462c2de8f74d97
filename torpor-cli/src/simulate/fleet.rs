//! Several nodes of one kind: which function is on which, and all of them simulated beside each other.
//!
//! The layer above the nodes knows what functions ask for and what nodes have left, as a Kubernetes scheduler does: one function after
//! the other goes to a node that has what it asks for, the one of which least is asked so far (its `LeastAllocated`), and stays there.

use crate::load_test::record::{Outcome, Record};
use crate::simulate::work::{Request, Tally, Work, record};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What a function asks for, or a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Memory: what its functions may have in all.
    pub bytes: u64,
    /// Of a GPU's time, in millionths.
    pub share: u64,
}

/// More than anybody asks for.
pub const UNBOUNDED: u64 = u64::MAX;

impl Room {
    fn fits_into(self, left: Self) -> bool {
        self.bytes <= left.bytes && self.share <= left.share
    }

    /// The part of `whole` that this is, on average of both.
    fn part_of(self, whole: Self) -> f64 {
        let part = |own: u64, of: u64| own as f64 / of.max(1) as f64;
        f64::midpoint(part(self.bytes, whole.bytes), part(self.share, whole.share))
    }
}

/// The node of each function that has found one. Functions come in their order.
///
/// With two nodes of room 10, functions that ask for 6, 3, 5 and 8:
/// the first goes to the first node, the second to the other, the third there, too, since it has more left, and the last nowhere.
pub fn spread(asks: &[Room], node: Room, nodes: usize) -> Vec<Option<usize>> {
    let mut left = vec![node; nodes];
    let mut place = |ask: &Room| {
        let most_left = |&one: &usize, &other: &usize| {
            let part = |at: usize| left[at].part_of(node);
            // Of equal ones the first.
            part(one).total_cmp(&part(other)).then(other.cmp(&one))
        };
        let chosen = (0..nodes).filter(|&at| ask.fits_into(left[at])).max_by(most_left)?;
        left[chosen].bytes -= ask.bytes;
        left[chosen].share -= ask.share;
        Some(chosen)
    };
    asks.iter().map(&mut place).collect()
}

/// What each function uses of a GPU's time, in millionths: what it was asked on average, each a warm inference.
pub fn shares(work: &Work<'_>) -> Vec<u64> {
    let length = work.requests.last().map_or(0.0, |last| last.at.as_secs_f64()).max(60.0);
    let mut shares = vec![0.0; work.functions.len()];
    for request in &work.requests {
        shares[request.function] += work.functions[request.function].model.warm().as_secs_f64() / length;
    }
    shares.into_iter().map(|share: f64| (1e6 * share).ceil() as u64).collect()
}

/// Runs each node's part of the work by `simulate`, given the node's number, as many at a time as there are CPUs.
pub fn run(
    work: &Work<'_>,
    places: &[Option<usize>],
    nodes: usize,
    simulate: impl Fn(&Work<'_>, u64) -> (Vec<Record>, Tally) + Sync,
) -> (Vec<Record>, Tally) {
    let (parts, mut records) = split(work, places, nodes);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(vec![None; nodes]);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(nodes);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let node = part.node;
                    let of_node = simulate(&part.work, node as u64);
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[node] = Some(of_node);
                }
            });
        }
    });
    let mut tally = Tally::default();
    let done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    for (of_node, of_its) in done.into_iter().flatten() {
        records.extend(of_node);
        tally.add(of_its);
    }
    records.sort_by(|one, other| {
        one.scheduled_s.total_cmp(&other.scheduled_s).then_with(|| one.function.cmp(&other.function))
    });
    (records, tally)
}

struct Part<'a> {
    node: usize,
    work: Work<'a>,
}

/// Each node's part, and what becomes of the requests of those that have none: they are never sent.
fn split<'a>(work: &Work<'a>, places: &[Option<usize>], nodes: usize) -> (Vec<Part<'a>>, Vec<Record>) {
    let empty = || Work {
        functions: Vec::new(),
        requests: Vec::new(),
        patience: work.patience,
        beside: work.beside,
        percentile: work.percentile,
    };
    let mut parts: Vec<_> = (0..nodes).map(|node| Part { node, work: empty() }).collect();
    let mut numbers = vec![0; places.len()];
    for (function, place) in places.iter().enumerate() {
        let Some(node) = *place else { continue };
        let functions = &mut parts[node].work.functions;
        numbers[function] = functions.len();
        functions.push(work.functions[function].clone());
    }
    let mut homeless = Vec::new();
    for request in &work.requests {
        match places[request.function] {
            Some(node) => {
                parts[node]
                    .work
                    .requests
                    .push(Request { at: request.at, function: numbers[request.function] });
            }
            None => {
                let function = &work.functions[request.function];
                homeless.push(record(request, function, Duration::ZERO, Outcome::Unsent, "none"));
            }
        }
    }
    parts.retain(|part| !part.work.requests.is_empty());
    (parts, homeless)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::profile::Profile;
    use crate::simulate::work::Function;
    use proptest::prelude::*;

    fn of_bytes(bytes: u64) -> Room {
        Room { bytes, share: 0 }
    }

    #[test]
    fn a_function_goes_where_most_is_left_and_nowhere_without_room() {
        let asks = [6, 3, 5, 8].map(of_bytes);
        let node = Room { bytes: 10, share: 1 };
        assert_eq!(spread(&asks, node, 2), [Some(0), Some(1), Some(1), None]);
    }

    #[test]
    fn what_is_asked_much_is_not_all_on_one_node() {
        let ask = |share| Room { bytes: 1, share };
        let asks = [900, 100, 900, 100].map(ask);
        let node = Room { bytes: UNBOUNDED, share: 1000 };
        assert_eq!(spread(&asks, node, 2), [Some(0), Some(1), Some(1), Some(0)]);
    }

    proptest! {
        #[test]
        fn no_node_has_more_than_it_offers_and_who_is_nowhere_fits_nowhere(
            asks in prop::collection::vec((1..100_u64, 0..100_u64), 1..60),
            nodes in 1..8_usize,
        ) {
            let asks: Vec<_> = asks.iter().map(|&(bytes, share)| Room { bytes, share }).collect();
            let node = Room { bytes: 300, share: 250 };
            let places = spread(&asks, node, nodes);
            let mut left = vec![node; nodes];
            for (ask, place) in asks.iter().zip(&places) {
                match place {
                    Some(place) => {
                        prop_assert!(ask.fits_into(left[*place]));
                        left[*place].bytes -= ask.bytes;
                        left[*place].share -= ask.share;
                    }
                    None => prop_assert!(left.iter().all(|&left| !ask.fits_into(left))),
                }
            }
        }
    }

    #[test]
    fn nodes_are_simulated_apart_and_who_has_none_is_not_served() {
        let profile = Profile::find("v100x1").unwrap();
        let functions = (0..3).map(|at| Function {
            name: format!("f{at}").into(),
            model: profile.model("resnet152").unwrap(),
            slo: Duration::from_millis(100),
        });
        let requests =
            (0..3).map(|function| Request { at: Duration::from_millis(function as u64), function });
        let work = Work {
            functions: functions.collect(),
            requests: requests.collect(),
            patience: Duration::from_secs(60),
            beside: Duration::ZERO,
            percentile: 0.98,
        };
        let alone = |work: &Work<'_>, node: u64| {
            let of = work.requests.iter().map(|request| {
                record(
                    request,
                    &work.functions[request.function],
                    Duration::from_millis(node),
                    Outcome::Ok,
                    "warm",
                )
            });
            (of.collect(), Tally { swaps: node, length: Duration::from_secs(node), ..Tally::default() })
        };
        let (records, tally) = run(&work, &[Some(2), None, Some(1)], 3, alone);
        let told: Vec<_> =
            records.iter().map(|record| (&*record.function, record.latency_ms, record.outcome)).collect();
        assert_eq!(told, [("f0", 2.0, Outcome::Ok), ("f1", 0.0, Outcome::Unsent), ("f2", 1.0, Outcome::Ok)]);
        assert_eq!((tally.swaps, tally.length), (3, Duration::from_secs(2)));
    }
}
