//! Reuse: when a client is likely to use its memory again, by the time between its uses so far.

use std::time::Duration;

/// What the latest gap counts of the mean.
const LATEST: f64 = 0.25;

/// A client's uses of its memory.
///
/// ```
/// use std::time::Duration;
/// use torpor_gpuserver::policy::reuse::Reuse;
///
/// let at = Duration::from_secs;
/// let mut reuse = Reuse::default();
/// for second in [10, 20, 30] {
///     reuse.used(at(second));
/// }
/// assert_eq!(reuse.until_next(at(31)), at(10));
/// // It is not used as it was.
/// assert_eq!(reuse.until_next(at(70)), at(40));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Reuse {
    last: Option<Duration>,
    /// Between two uses, the later ones counting more; absent before there were two.
    gap: Option<Duration>,
}

impl Reuse {
    /// It is used now, at a time since whatever all of them count from.
    pub fn used(&mut self, at: Duration) {
        if let Some(last) = self.last {
            let latest = at.saturating_sub(last);
            self.gap =
                Some(self.gap.map_or(latest, |gap| latest.mul_f64(LATEST) + gap.mul_f64(1.0 - LATEST)));
        }
        self.last = Some(at);
    }

    /// How long it is likely to be until the next use: as long as between those before, or, if that has passed already, as long again as
    /// since the last. Of one that was never used it is not known, and longest.
    #[must_use]
    pub fn until_next(&self, now: Duration) -> Duration {
        let since = |last| now.saturating_sub(last);
        self.last.map_or(Duration::MAX, |last| since(last).max(self.gap.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn nothing_is_known_before_the_first_use_and_after_it_how_long_it_is_past() {
        let mut reuse = Reuse::default();
        assert_eq!(reuse.until_next(ms(5)), Duration::MAX);
        reuse.used(ms(5));
        assert_eq!(reuse.until_next(ms(12)), ms(7));
    }

    proptest! {
        #[test]
        fn it_is_never_sooner_than_uses_came_nor_than_the_last_is_past(gaps in prop::collection::vec(1..10_000_u64, 1..40), rest in 0..100_000_u64) {
            let (mut reuse, mut now) = (Reuse::default(), 0);
            reuse.used(ms(0));
            for gap in &gaps {
                now += gap;
                reuse.used(ms(now));
            }
            let until = reuse.until_next(ms(now + rest));
            let (least, most) = (*gaps.iter().min().unwrap(), *gaps.iter().max().unwrap());
            prop_assert!(until >= ms(rest).max(ms(least).saturating_sub(ms(1))));
            prop_assert!(until <= ms(rest).max(ms(most) + ms(1)));
        }
    }
}
