//! Traces that are drawn: requests in each minute with the statistics of those that the paper's prototype was tried with.
//!
//! Those were 203 functions with 0 to 33 requests in each of 31 minutes, 9.79 on average. A function's own mean is drawn from a
//! gamma distribution of shape 2, its minutes from a Poisson distribution with that mean. The prototype spaced the requests of a
//! minute almost evenly; here they come independently, unless [`Spacing::Smooth`] is wanted.

use crate::load_test::arrivals::{random, spread};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gamma, Normal, Poisson};
use std::time::Duration;

/// Requests in a minute on average, and at most.
const MEAN: f64 = 9.79;
const MOST: f64 = 33.0;

/// Of the gamma distribution of functions' means.
const SHAPE: f64 = 2.0;

/// The coefficient of variation of the prototype's gaps: it drew 0.08 to 0.3.
const SMOOTH_CV: f64 = 0.2;

/// How the requests of a minute are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Spacing {
    /// Independently of each other
    Poisson,
    /// Almost evenly, as the paper's prototype did
    Smooth,
}

/// When requests come to a function within so many minutes, at `speed` times the rate of the prototype's trace.
pub fn arrivals(minutes: usize, speed: f64, spacing: Spacing, seed: u64, function: usize) -> Vec<Duration> {
    let mut random = random(seed, function);
    let counts = counts(minutes, speed, &mut random);
    match spacing {
        Spacing::Poisson => spread(&counts, &mut random),
        Spacing::Smooth => smooth(&counts, &mut random),
    }
}

fn counts(minutes: usize, speed: f64, random: &mut ChaCha8Rng) -> Vec<u32> {
    // Neither is refused: shape and scale are positive.
    let mean = Gamma::new(SHAPE, MEAN / SHAPE).map_or(MEAN, |means| means.sample(random)).clamp(0.1, MOST);
    let count = |random: &mut ChaCha8Rng| {
        let count: f64 = Poisson::new(mean * speed).map_or(0.0, |counts| counts.sample(random));
        count.min(MOST * speed.max(1.0)) as u32
    };
    (0..minutes).map(|_| count(random)).collect()
}

fn smooth(per_minute: &[u32], random: &mut ChaCha8Rng) -> Vec<Duration> {
    let mut arrivals = Vec::new();
    for (minute, &count) in per_minute.iter().enumerate() {
        let gap = 60.0 / f64::from(count.max(1));
        let offset: f64 = random.random();
        // Never refused: the deviation is positive.
        let shift = Normal::new(0.0, SMOOTH_CV).ok();
        for at in 0..count {
            let shift: f64 = shift.map_or(0.0, |shift| shift.sample(random));
            let second = 60.0 * minute as f64 + gap * (f64::from(at) + offset + shift);
            arrivals.push(Duration::from_secs_f64(second.max(0.0)));
        }
    }
    arrivals.sort_unstable();
    arrivals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_the_statistics_of_the_prototype_s() {
        let all: Vec<u32> = (0..203).flat_map(|function| counts(31, 1.0, &mut random(1, function))).collect();
        let mean = all.iter().sum::<u32>() as f64 / all.len() as f64;
        assert!((mean - MEAN).abs() < 1.0, "{mean}");
        assert_eq!((all.iter().min(), all.iter().max()), (Some(&0), Some(&33)));
    }

    #[test]
    fn smooth_requests_are_nearly_evenly_spaced_and_independent_ones_are_not() {
        let variation = |spacing| {
            let arrivals: Vec<_> =
                arrivals(200, 1.0, spacing, 3, 0).iter().map(Duration::as_secs_f64).collect();
            let gaps: Vec<f64> = arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt() / mean
        };
        assert!(variation(Spacing::Smooth) < 0.6 && variation(Spacing::Poisson) > 0.9);
    }

    #[test]
    fn a_function_s_requests_depend_on_seed_and_place_alone() {
        let drawn = |seed, function| arrivals(31, 1.0, Spacing::Poisson, seed, function);
        assert_eq!(drawn(1, 5), drawn(1, 5));
        assert_ne!(drawn(1, 5), drawn(2, 5));
        assert_ne!(drawn(1, 5), drawn(1, 6));
    }
}
