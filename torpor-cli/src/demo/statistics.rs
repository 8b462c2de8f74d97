//! Latencies in two numbers.

use std::time::Duration;

/// The smallest duration that at least `percent` of all do not exceed (nearest rank); zero of none.
pub fn percentile(durations: &[Duration], percent: usize) -> Duration {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// A duration for a table: `840 µs`, `12.3 ms`, `1.2 s`.
pub fn readable(duration: Duration) -> String {
    match duration.as_micros() {
        micros @ ..1_000 => format!("{micros} µs"),
        micros @ ..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        micros => format!("{:.1} s", micros as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let durations: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&durations, 50), Duration::from_millis(100));
        assert_eq!(percentile(&durations, 99), Duration::from_millis(198));
        assert_eq!(percentile(&durations[..1], 50), Duration::from_millis(200));
        assert_eq!(percentile(&durations[..1], 99), Duration::from_millis(200));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }

    #[test]
    fn durations_have_a_fitting_unit() {
        let shown = [(840, "840 µs"), (12_345, "12.3 ms"), (1_234_567, "1.2 s")];
        for (micros, text) in shown {
            assert_eq!(readable(Duration::from_micros(micros)), text);
        }
    }
}
