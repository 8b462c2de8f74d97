//! How a function's requests fared in the last minute, for people who look: rate, percentiles, attainment.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How far back it looks.
const WINDOW: Duration = Duration::from_secs(60);
/// Requests that are remembered; of a busier function the window is shorter.
const MOST: usize = 1000;

/// The last requests of a function.
#[derive(Debug)]
pub struct Recent {
    since: Instant,
    last: Mutex<VecDeque<Sample>>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    /// Seconds; infinite for a request that failed.
    took: f32,
    met: bool,
}

/// What they say together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fared {
    /// Requests a second.
    pub rate: f64,
    /// Half were answered within so many milliseconds; `None` if that many were not answered.
    pub p50_ms: Option<f64>,
    /// 99 of 100 were.
    pub p99_ms: Option<f64>,
    /// Which part was answered well and in time; `None` if there was no request.
    pub attainment: Option<f64>,
}

impl Default for Recent {
    fn default() -> Self {
        Self { since: Instant::now(), last: Mutex::default() }
    }
}

impl Recent {
    /// Notes a request that has ended now: how long it took, whether it was answered well, and whether in time too.
    pub fn note(&self, took: Duration, good: bool, met: bool) {
        self.note_at(Instant::now(), took, good, met);
    }

    fn note_at(&self, at: Instant, took: Duration, good: bool, met: bool) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == MOST {
            last.pop_front();
        }
        let took = if good { took.as_secs_f32() } else { f32::INFINITY };
        last.push_back(Sample { at, took, met });
    }

    /// How it was lately.
    #[must_use]
    pub fn fared(&self) -> Fared {
        self.fared_at(Instant::now())
    }

    fn fared_at(&self, now: Instant) -> Fared {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let age = |sample: &Sample| now.saturating_duration_since(sample.at);
        let within: Vec<Sample> = last.iter().filter(|sample| age(sample) < WINDOW).copied().collect();
        let Some(first) = within.first() else { return Fared::default() };
        let span = if within.len() == MOST { age(first) } else { WINDOW.min(now - self.since) };
        let mut took: Vec<f32> = within.iter().map(|sample| sample.took).collect();
        took.sort_by(f32::total_cmp);
        let percentile = |percent: usize| {
            let rank = (took.len() * percent).div_ceil(100).max(1);
            Some(f64::from(took[rank - 1]) * 1e3).filter(|ms| ms.is_finite())
        };
        let met = within.iter().filter(|sample| sample.met).count();
        Fared {
            rate: within.len() as f64 / span.as_secs_f64().max(1.0),
            p50_ms: percentile(50),
            p99_ms: percentile(99),
            attainment: Some(met as f64 / within.len() as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_minute_counts_and_failures_are_no_answers() {
        let recent = Recent::default();
        let at = |seconds| recent.since + Duration::from_secs(seconds);
        assert_eq!(recent.fared_at(at(1)), Fared::default());
        recent.note_at(at(1), Duration::from_secs(9), true, false);
        for second in 100..200 {
            let failed = second % 2 == 0;
            recent.note_at(at(second), Duration::from_millis(second), !failed, !failed);
        }
        let fared = recent.fared_at(at(199));
        assert!((fared.rate - 1.0).abs() < 1e-9, "{fared:?}");
        assert_eq!(fared.attainment, Some(0.5));
        assert!((fared.p50_ms.unwrap() - 199.0).abs() < 0.01, "{fared:?}");
        assert_eq!(fared.p99_ms, None);
    }

    #[test]
    fn a_busy_function_has_a_shorter_window() {
        let recent = Recent::default();
        let begin = recent.since;
        for index in 0..3000 {
            recent.note_at(begin + Duration::from_millis(10 * index), Duration::from_millis(1), true, true);
        }
        let fared = recent.fared_at(begin + Duration::from_secs(30));
        assert!((fared.rate - 100.0).abs() < 1.0, "{fared:?}");
    }
}
