//! Traces that are drawn: requests in each minute with the statistics of those that the paper's prototype was tried with.
//!
//! Those were 203 functions with 0 to 33 requests in each of 31 minutes, 9.79 on average. A function's own mean is drawn from a
//! gamma distribution of shape 2, or of the shape that makes them as unequal as is wanted, its minutes from a Poisson distribution with
//! that mean. The prototype spaced the requests of a minute almost evenly; here they come independently, unless [`Spacing::Smooth`] is
//! wanted.

use crate::load_test::arrivals::{random, spread};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gamma, Normal, Poisson};
use std::time::Duration;

/// Requests in a minute on average, and at most.
const MEAN: f64 = 9.79;
const MOST: f64 = 33.0;

/// What a function is asked in a minute at least, on average.
const LEAST: f64 = 0.1;

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

/// What is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    /// How long it is.
    pub minutes: usize,
    /// Times the rate of the prototype's trace.
    pub speed: f64,
    /// The coefficient of variation of functions' means, and no bound on them; else they are as the prototype's.
    pub skew: Option<f64>,
    /// Within a minute.
    pub spacing: Spacing,
    /// Of all that is drawn.
    pub seed: u64,
}

/// When requests come to a function.
pub fn arrivals(draw: Draw, function: usize) -> Vec<Duration> {
    let mut random = random(draw.seed, function);
    let counts = counts(draw, &mut random);
    match draw.spacing {
        Spacing::Poisson => spread(&counts, &mut random),
        Spacing::Smooth => smooth(&counts, &mut random),
    }
}

fn counts(draw: Draw, random: &mut ChaCha8Rng) -> Vec<u32> {
    let (shape, most) = draw.skew.map_or((SHAPE, MOST), |skew| (skew.powi(-2), f64::INFINITY));
    // Neither is refused: shape and scale are positive.
    let mean = Gamma::new(shape, MEAN / shape).map_or(MEAN, |means| means.sample(random)).clamp(LEAST, most);
    let count = |random: &mut ChaCha8Rng| {
        let count: f64 = Poisson::new(mean * draw.speed).map_or(0.0, |counts| counts.sample(random));
        count.min(most * draw.speed.max(1.0)) as u32
    };
    (0..draw.minutes).map(|_| count(random)).collect()
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

    const PROTOTYPE: Draw = Draw { minutes: 31, speed: 1.0, skew: None, spacing: Spacing::Poisson, seed: 1 };

    #[test]
    fn functions_are_as_unequal_as_is_wanted_and_asked_as_often_in_all() {
        for skew in [0.5, 2.0] {
            let draw = Draw { minutes: 100, skew: Some(skew), ..PROTOTYPE };
            let means: Vec<f64> = (0..4000)
                .map(|function| f64::from(counts(draw, &mut random(1, function)).iter().sum::<u32>()) / 100.0)
                .collect();
            let mean = means.iter().sum::<f64>() / means.len() as f64;
            let deviation =
                (means.iter().map(|own| (own - mean).powi(2)).sum::<f64>() / means.len() as f64).sqrt();
            assert!((mean / MEAN - 1.0).abs() < 0.1, "{mean}");
            assert!((deviation / mean / skew - 1.0).abs() < 0.15, "{} of {skew}", deviation / mean);
        }
    }

    #[test]
    fn counts_have_the_statistics_of_the_prototype_s() {
        let all: Vec<u32> =
            (0..203).flat_map(|function| counts(PROTOTYPE, &mut random(1, function))).collect();
        let mean = all.iter().sum::<u32>() as f64 / all.len() as f64;
        assert!((mean - MEAN).abs() < 1.0, "{mean}");
        assert_eq!((all.iter().min(), all.iter().max()), (Some(&0), Some(&33)));
    }

    #[test]
    fn smooth_requests_are_nearly_evenly_spaced_and_independent_ones_are_not() {
        let variation = |spacing| {
            let draw = Draw { minutes: 200, spacing, seed: 3, ..PROTOTYPE };
            let arrivals: Vec<_> = arrivals(draw, 0).iter().map(Duration::as_secs_f64).collect();
            let gaps: Vec<f64> = arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt() / mean
        };
        assert!(variation(Spacing::Smooth) < 0.6 && variation(Spacing::Poisson) > 0.9);
    }

    #[test]
    fn a_function_s_requests_depend_on_seed_and_place_alone() {
        let drawn = |seed, function| arrivals(Draw { seed, ..PROTOTYPE }, function);
        assert_eq!(drawn(1, 5), drawn(1, 5));
        assert_ne!(drawn(1, 5), drawn(2, 5));
        assert_ne!(drawn(1, 5), drawn(1, 6));
    }
}
