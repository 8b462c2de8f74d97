//! How functions have fared lately: how long their requests take, and how many were answered in time.

use super::Ended;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Requests after which the past counts half, so that a function is judged by what it does now.
const MEMORY: f64 = 1000.0;
/// The weight of the last request in the mean of what requests take.
const LATEST: f64 = 0.1;

/// How a function has fared.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Standing {
    /// Requests, and those of them that were answered in time.
    pub(super) requests: f64,
    pub(super) met: f64,
    /// What one takes, in seconds; zero before any has.
    pub(super) mean_s: f64,
    /// The part that should be answered in time.
    pub(super) percentile: f64,
}

/// All functions.
pub(super) type Standings = BTreeMap<Arc<str>, Standing>;

impl Standing {
    pub(super) fn note(&mut self, ended: &Ended) {
        if self.requests >= MEMORY {
            (self.requests, self.met) = (self.requests / 2.0, self.met / 2.0);
        }
        self.requests += 1.0;
        self.met += f64::from(u8::from(ended.met));
        self.percentile = ended.percentile;
        if let Some(took) = ended.took.map(|took| took.as_secs_f64()) {
            let weight = if self.mean_s == 0.0 { 1.0 } else { LATEST };
            self.mean_s += weight * (took - self.mean_s);
        }
    }

    /// How many seconds of requests answered in time are missing until the objective is kept again: `x` further requests, all
    /// in time, make `(met + x) / (requests + x)` the percentile. Negative for a function that is ahead.
    pub(super) fn deficit_s(&self) -> f64 {
        self.mean_s * (self.percentile * self.requests - self.met) / (1.0 - self.percentile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::tests::ended;

    #[test]
    fn the_deficit_is_what_repairs_the_percentile() {
        let mut standing = Standing::default();
        for met in [true, true, false] {
            standing.note(&Ended { percentile: 0.75, ..ended("f", 100, met) });
        }
        // 2 of 3; one more in time makes 3 of 4.
        assert!((standing.deficit_s() - 0.1).abs() < 1e-9, "{standing:?}");
        standing.note(&Ended { percentile: 0.75, ..ended("f", 100, true) });
        assert!(standing.deficit_s().abs() < 1e-9, "{standing:?}");
    }

    #[test]
    fn a_function_that_failed_long_ago_is_forgiven() {
        let mut standing = Standing::default();
        (0..1000).for_each(|_| standing.note(&ended("f", 10, false)));
        (0..5000).for_each(|_| standing.note(&ended("f", 10, true)));
        assert!(standing.met / standing.requests > 0.95, "{standing:?}");
    }
}
