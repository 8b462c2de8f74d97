//! Due: which of the clients that wait has the GPU first.
//!
//! The one that must begin first to be in time: when it came and its function's objective, less what it takes. One without an
//! objective must begin within [`PATIENCE`], as must one whose objective is longer. So among clients without objectives the first
//! to come is the first to go, and whoever waits is overtaken only by those that came within its own patience: nobody starves.

use std::time::Duration;

/// Within what time a client without an objective has its turn before any that come then.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// By when a client that came at `since` must begin: the least is the first. `takes` is how long its turns last.
///
/// ```
/// use std::time::Duration;
/// use torpor_gpuserver::policy::due::due;
///
/// let ms = Duration::from_millis;
/// let (first, urgent) = (due(ms(5000), None, ms(20)), due(ms(5100), Some(ms(80)), ms(20)));
/// assert!(urgent < first);
/// // Overtaken for as long as it has patience, and no longer.
/// assert!(first < due(ms(6000), Some(ms(80)), ms(20)));
/// // Of two objectives that are equal, the one whose requests take longer begins first.
/// assert!(due(ms(0), Some(ms(80)), ms(60)) < due(ms(0), Some(ms(80)), ms(20)));
/// ```
#[must_use]
pub fn due(since: Duration, slo: Option<Duration>, takes: Duration) -> Duration {
    since + slo.map_or(PATIENCE, |slo| slo.saturating_sub(takes).min(PATIENCE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nobody_is_overtaken_by_one_that_comes_after_its_patience(
            since in 0..100_000_u64,
            later in 0..100_000_u64,
            slos in prop::array::uniform2(prop::option::of(0..10_000_u64)),
            takes in prop::array::uniform2(0..10_000_u64),
        ) {
            let ms = Duration::from_millis;
            let first = due(ms(since), slos[0].map(ms), ms(takes[0]));
            let second = due(ms(since) + PATIENCE + ms(later), slos[1].map(ms), ms(takes[1]));
            prop_assert!(first <= second);
        }

        #[test]
        fn without_objectives_the_first_to_come_is_first(came: [u32; 2], takes: [u32; 2]) {
            let ms = |ms: u32| Duration::from_millis(ms.into());
            let [first, second] = [0, 1].map(|at| due(ms(came[at]), None, ms(takes[at])));
            prop_assert_eq!(first.cmp(&second), came[0].cmp(&came[1]));
        }
    }
}
