//! The paper's order: the GPUs' time goes to those functions whose objectives can still be kept with it.
//!
//! Every two seconds, each function's deficit is what it needs to keep its objective again ([`Standing::deficit_s`]). Those with
//! the smallest deficits whose sum is at most alpha of all deficits are the high class, served from the largest deficit down; the
//! others are the low class, served from the smallest up, when nobody of the high class waits. Alpha follows the attainment: it
//! doubles when that rises, halves when that falls, and creeps up while it stays.
//!
//! A function that is ahead needs nothing, so it is in the high class, behind those with a deficit.

use super::standing::{Standing, Standings};
use super::{Candidate, Ended, Order, first_by};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// From one look at all deficits to the next.
const INTERVAL: Duration = Duration::from_secs(2);
/// Looks from one change of alpha to the next.
const ALPHA_LOOKS: u32 = 20;
/// By how much the attainment must have changed to count as changed.
const CHANGE: f64 = 0.04;
/// What alpha creeps up by.
const CREEP: f64 = 1.01;

/// Knows how functions have fared, and which are worth the GPUs' time.
#[derive(Debug)]
pub(super) struct SloAware {
    standings: Standings,
    /// Each function's place in the order.
    places: HashMap<Arc<str>, usize>,
    looked_at: Instant,
    looks: u32,
    alpha: f64,
    /// Requests since alpha was last changed, and those of them that were in time.
    lately: (f64, f64),
    attainment: Option<f64>,
}

impl SloAware {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            standings: Standings::new(),
            places: HashMap::new(),
            looked_at: now,
            looks: 0,
            alpha: 1.0,
            lately: (0.0, 0.0),
            attainment: None,
        }
    }

    fn look(&mut self, now: Instant) {
        self.looked_at = now;
        self.looks += 1;
        if self.looks >= ALPHA_LOOKS && self.lately.0 > 0.0 {
            let attainment = self.lately.1 / self.lately.0;
            self.alpha = next_alpha(self.alpha, self.attainment, attainment);
            (self.looks, self.lately, self.attainment) = (0, (0.0, 0.0), Some(attainment));
        }
        let order = ranked(&self.standings, self.alpha);
        self.places = order.into_iter().enumerate().map(|(place, function)| (function, place)).collect();
    }
}

impl Order for SloAware {
    fn next(&mut self, now: Instant, candidates: &[Candidate]) -> Option<usize> {
        let mut new = false;
        for one in candidates {
            if !self.standings.contains_key(&one.function) {
                let standing = Standing { percentile: one.percentile, ..Standing::default() };
                self.standings.insert(one.function.clone(), standing);
                new = true;
            }
        }
        if new || now.saturating_duration_since(self.looked_at) >= INTERVAL {
            self.look(now);
        }
        first_by(candidates, |one| (self.places.get(&one.function).copied(), one.due))
    }

    fn ended(&mut self, _now: Instant, ended: &Ended) {
        self.standings.entry(ended.function.clone()).or_default().note(ended);
        self.lately.0 += 1.0;
        self.lately.1 += f64::from(u8::from(ended.met));
    }
}

/// All functions, the most deserving first.
fn ranked(standings: &Standings, alpha: f64) -> Vec<Arc<str>> {
    let mut deficits: Vec<_> =
        standings.iter().map(|(function, standing)| (function.clone(), standing.deficit_s())).collect();
    deficits.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    // Sums of floating numbers are exact to a few units of their last place.
    let needs =
        |deficits: &[(Arc<str>, f64)]| deficits.iter().map(|(_, deficit)| deficit.max(0.0)).sum::<f64>();
    let budget = alpha * needs(&deficits) * (1.0 + 1e-9);
    let high = (0..=deficits.len()).rev().find(|&count| needs(&deficits[..count]) <= budget).unwrap_or(0);
    let (high, low) = deficits.split_at(high);
    high.iter().rev().chain(low).map(|(function, _)| function.clone()).collect()
}

/// Alpha after the attainment has become `now`.
fn next_alpha(alpha: f64, before: Option<f64>, now: f64) -> f64 {
    let change = before.map_or(0.0, |before| now - before);
    let factor = match change {
        change if change > CHANGE => 2.0,
        change if change < -CHANGE => 0.5,
        _ => CREEP,
    };
    (alpha * factor).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::tests::{candidate, ended};

    /// Functions whose requests take a second, with deficits in seconds.
    fn standings(deficits: &[(&str, f64)]) -> Standings {
        let standing = |deficit: f64| {
            let standing =
                Standing { requests: 100.0, met: 50.0 - 0.5 * deficit, mean_s: 1.0, percentile: 0.5 };
            assert!((standing.deficit_s() - deficit).abs() < 1e-9);
            standing
        };
        deficits.iter().map(|&(name, deficit)| (name.into(), standing(deficit))).collect()
    }

    fn names(ranked: &[Arc<str>]) -> Vec<&str> {
        ranked.iter().map(|name| &**name).collect()
    }

    #[test]
    fn who_cannot_be_helped_within_the_budget_waits_behind_all_others() {
        let all = standings(&[
            ("ahead", -5.0),
            ("small", 1.0),
            ("middle", 3.0),
            ("large", 6.0),
            ("hopeless", 90.0),
        ]);
        // All of it: whoever needs most is first.
        assert_eq!(names(&ranked(&all, 1.0)), ["hopeless", "large", "middle", "small", "ahead"]);
        // A tenth, 10 of 100: 1 + 3 + 6.
        assert_eq!(names(&ranked(&all, 0.1)), ["large", "middle", "small", "ahead", "hopeless"]);
        // 4 of 100; the low class begins with the smallest deficit.
        assert_eq!(names(&ranked(&all, 0.04)), ["middle", "small", "ahead", "large", "hopeless"]);
        assert_eq!(names(&ranked(&standings(&[]), 0.5)), [""; 0]);
    }

    #[test]
    fn alpha_follows_the_attainment() {
        assert!((next_alpha(0.4, Some(0.5), 0.6) - 0.8).abs() < 1e-9);
        assert!((next_alpha(0.4, Some(0.6), 0.5) - 0.2).abs() < 1e-9);
        assert!((next_alpha(0.4, Some(0.6), 0.61) - 0.404).abs() < 1e-9);
        assert!((next_alpha(0.8, Some(0.5), 0.9) - 1.0).abs() < 1e-9, "never above one");
        assert!((next_alpha(0.5, None, 0.9) - 0.505).abs() < 1e-9);
    }

    #[test]
    fn a_function_in_need_comes_before_one_that_is_ahead_and_returns_when_it_is_helped() {
        let begin = Instant::now();
        let mut order = SloAware::new(begin);
        (0..100).for_each(|_| order.ended(begin, &ended("well", 10, true)));
        (0..100).for_each(|at| order.ended(begin, &ended("late", 10, at % 2 == 0)));
        let after = |seconds| begin + Duration::from_secs(seconds);
        let waiting = |now| [candidate("well", now, 10, 1), candidate("late", now, 500, 2)];
        assert_eq!(order.next(after(2), &waiting(after(2))), Some(1));
        (0..2000).for_each(|_| order.ended(after(2), &ended("well", 10, false)));
        (0..9000).for_each(|_| order.ended(after(2), &ended("late", 10, true)));
        assert_eq!(order.next(after(3), &waiting(after(3))), Some(1), "within two seconds nothing changes");
        assert_eq!(order.next(after(4), &waiting(after(4))), Some(0));
    }

    #[test]
    fn falling_attainment_sacrifices_the_hopeless() {
        let begin = Instant::now();
        let mut order = SloAware::new(begin);
        let mut now = begin;
        let waiting = |now| [candidate("hopeless", now, 1, 1), candidate("fine", now, 1, 2)];
        for (met, round) in [(true, 0), (false, 1)] {
            for _ in 0..ALPHA_LOOKS {
                order.ended(now, &ended("fine", 10, met || round == 0));
                order.ended(now, &ended("hopeless", 10, met));
                now += INTERVAL;
                order.next(now, &waiting(now));
            }
        }
        assert!(order.alpha < 1.0, "{order:?}");
        assert_eq!(order.attainment, Some(0.0));
    }
}
