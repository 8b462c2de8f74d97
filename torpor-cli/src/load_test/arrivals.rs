//! When requests come: random processes, and counts per minute. Everything is drawn from a seed, so a run can be repeated.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, Exp1, Gamma};
use std::time::Duration;

/// How the gaps between requests are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Process {
    /// Independent requests: exponential gaps
    Poisson,
    /// Equal gaps, from a random beginning
    Constant,
    /// Gaps of a gamma distribution with a coefficient of variation of --cv: bursts and silences
    Bursty,
}

/// The random numbers of one function, which do not depend on how many others there are.
#[must_use]
pub fn random(seed: u64, function: usize) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(function as u64);
    random
}

/// Arrivals of a process at `rate` requests a second within `length`. `cv` is the coefficient of variation of bursty gaps.
#[must_use]
pub fn draw(
    process: Process,
    rate: f64,
    cv: f64,
    length: Duration,
    random: &mut ChaCha8Rng,
) -> Vec<Duration> {
    let shape = 1.0 / (cv * cv);
    // With a mean of 1. It is none if the shape is no positive number, which the flag's bounds keep out.
    let gamma = Gamma::new(shape, cv * cv).ok();
    let phase: f64 = random.random();
    let mut gap = |first: bool| match (process, gamma) {
        (Process::Constant, _) => {
            if first {
                phase
            } else {
                1.0
            }
        }
        (Process::Bursty, Some(gamma)) => gamma.sample(random),
        (Process::Poisson, _) | (Process::Bursty, None) => Exp1.sample(random),
    };
    let mut at = gap(true) / rate;
    let mut arrivals = Vec::new();
    while at < length.as_secs_f64() {
        arrivals.push(Duration::from_secs_f64(at));
        at += gap(false) / rate;
    }
    arrivals
}

/// Arrivals of so many requests in each minute, anywhere in it.
#[must_use]
pub fn spread(per_minute: &[u32], random: &mut ChaCha8Rng) -> Vec<Duration> {
    let mut arrivals = Vec::new();
    for (minute, &count) in per_minute.iter().enumerate() {
        let begin = 60.0 * minute as f64;
        arrivals.extend((0..count).map(|_| Duration::from_secs_f64(begin + 60.0 * random.random::<f64>())));
    }
    arrivals.sort_unstable();
    arrivals
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn gaps(process: Process, cv: f64) -> (f64, f64) {
        let arrivals = draw(process, 5.0, cv, HOUR, &mut random(1, 0));
        let gaps: Vec<f64> = arrivals.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        (1.0 / mean, variance.sqrt() / mean)
    }

    #[test]
    fn processes_have_their_rate_and_their_variation() {
        for (process, cv, expected) in
            [(Process::Constant, 9.0, 0.0), (Process::Poisson, 9.0, 1.0), (Process::Bursty, 3.0, 3.0)]
        {
            let (rate, variation) = gaps(process, cv);
            assert!((4.5..5.5).contains(&rate), "{process:?}: {rate} requests a second");
            assert!((variation - expected).abs() < 0.2 * expected + 1e-6, "{process:?}: {variation}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_arrivals_and_functions_have_their_own() {
        let drawn = |seed, function| draw(Process::Poisson, 1.0, 1.0, HOUR, &mut random(seed, function));
        assert_eq!(drawn(7, 0), drawn(7, 0));
        assert_ne!(drawn(7, 0), drawn(8, 0));
        assert_ne!(drawn(7, 0), drawn(7, 1));
    }

    #[test]
    fn counts_come_within_their_minutes() {
        let arrivals = spread(&[3, 0, 200], &mut random(1, 0));
        let minutes = arrivals.iter().map(|at| at.as_secs() / 60);
        let in_minute = |minute| minutes.clone().filter(|&at| at == minute).count();
        assert_eq!((in_minute(0), in_minute(1), in_minute(2)), (3, 0, 200));
        assert!(arrivals.is_sorted());
    }
}
