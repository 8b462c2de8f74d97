//! Reuse: when a client is likely to use its memory again, by the time between its uses so far.

use std::time::Duration;

/// How many gaps a mean remembers: the latest counts an eighth of it once there were many. More would follow a client that changes too late.
const REMEMBERED: f64 = 8.0;

/// Who has not been used for so many of its gaps has fallen silent: of those that are used at random one wait in seven is as long.
const SILENT: f64 = 2.0;

/// A client's uses of its memory.
///
/// ```
/// use std::time::Duration;
/// use torpor_gpuserver::policy::reuse::Reuse;
///
/// let at = Duration::from_secs;
/// let (mut reuse, mut other) = (Reuse::default(), Reuse::default());
/// for second in [10, 20, 30] {
///     reuse.used(at(second));
/// }
/// let usual = Reuse::usual([reuse, other]);
/// assert_eq!(usual, at(10));
/// assert_eq!(reuse.until_next(at(31), usual), at(10));
/// // It is not used as it was.
/// assert_eq!(reuse.until_next(at(70), usual), at(40));
/// // Nothing is known of one that was used once, but of the others.
/// other.used(at(30));
/// assert_eq!(other.until_next(at(31), usual), at(10));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Reuse {
    last: Option<Duration>,
    /// How many there were between uses, the older ones counting less.
    gaps: f64,
    /// How long those were together.
    seconds: f64,
}

/// What is known of a client's uses, for another place, where time counts from something else.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Past {
    /// How many gaps there were between uses, the older ones counting less.
    pub gaps: f64,
    /// How long those were together.
    pub seconds: f64,
    /// How long ago the last use was.
    pub since: Duration,
}

impl Reuse {
    /// What is known now; of one that was never used nothing.
    #[must_use]
    pub fn past(&self, now: Duration) -> Option<Past> {
        let since = now.saturating_sub(self.last?);
        Some(Past { gaps: self.gaps, seconds: self.seconds, since })
    }

    /// What was known elsewhere. Who was used before time began here counts as used then.
    #[must_use]
    pub fn resumed(past: Past, now: Duration) -> Self {
        Self { last: Some(now.saturating_sub(past.since)), gaps: past.gaps, seconds: past.seconds }
    }

    /// It is used now, at a time since whatever all of them count from.
    pub fn used(&mut self, at: Duration) {
        if let Some(last) = self.last {
            let keeps = 1.0 - 1.0 / REMEMBERED;
            self.gaps = self.gaps * keeps + 1.0;
            self.seconds = self.seconds * keeps + at.saturating_sub(last).as_secs_f64();
        }
        self.last = Some(at);
    }

    /// How long a gap of all of these is on average; zero before there is one.
    pub fn usual(all: impl IntoIterator<Item = Self>) -> Duration {
        let add = |(gaps, seconds), one: Self| (gaps + one.gaps, seconds + one.seconds);
        let (gaps, seconds) = all.into_iter().fold((0.0, 0.0), add);
        if gaps > 0.0 { duration(seconds / gaps) } else { Duration::ZERO }
    }

    /// How long it is likely to be until the next use: the mean of its gaps, and of one before them that was as usual and is forgotten like
    /// them, so that a single gap proves little. Or, of one that has fallen silent, as long again as since the last. Of one that was never
    /// used it is not known, and longest.
    #[must_use]
    pub fn until_next(&self, now: Duration, usual: Duration) -> Duration {
        let Some(last) = self.last else { return Duration::MAX };
        let before = 1.0 - self.gaps / REMEMBERED;
        let gap = duration((self.seconds + before * usual.as_secs_f64()) / (self.gaps + before));
        let since = now.saturating_sub(last);
        if since.as_secs_f64() > SILENT * gap.as_secs_f64() { since } else { gap }
    }
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn used(gaps: &[u64]) -> (Reuse, u64) {
        let (mut reuse, mut now) = (Reuse::default(), 0);
        reuse.used(ms(0));
        for gap in gaps {
            now += gap;
            reuse.used(ms(now));
        }
        (reuse, now)
    }

    #[test]
    fn nothing_is_known_before_the_first_use_and_after_it_how_long_it_is_past() {
        let mut reuse = Reuse::default();
        assert_eq!(reuse.until_next(ms(5), ms(2)), Duration::MAX);
        reuse.used(ms(5));
        assert_eq!(reuse.until_next(ms(12), Reuse::usual([reuse])), ms(7));
    }

    #[test]
    fn one_short_gap_does_not_make_a_client_a_busy_one_and_many_do() {
        let [once, often] = [&[10][..], &[10; 50]].map(|gaps| {
            let (reuse, now) = used(gaps);
            reuse.until_next(ms(now), ms(1_000))
        });
        assert!(once > ms(400) && often < ms(20), "{once:?} {often:?}");
    }

    #[test]
    fn what_was_known_elsewhere_is_known_here() {
        let (there, now) = used(&[300, 500, 400]);
        let (now, later) = (ms(now + 100), ms(90_000));
        assert_eq!(Reuse::default().past(now), None);
        let here = Reuse::resumed(there.past(now).unwrap(), later);
        for rest in [ms(0), ms(200), ms(5_000)] {
            assert_eq!(here.until_next(later + rest, ms(7)), there.until_next(now + rest, ms(7)));
        }
    }

    #[test]
    fn a_client_that_changes_is_followed() {
        let (reuse, now) = used(&[vec![1_000; 50], vec![10; 24]].concat());
        assert!(reuse.until_next(ms(now), ms(100)) < ms(100));
    }

    proptest! {
        #[test]
        fn it_is_as_long_as_gaps_were_unless_it_has_fallen_silent(
            gaps in prop::collection::vec(1..10_000_u64, 0..40),
            usual in 1..10_000_u64,
            rest in 0..100_000_u64,
        ) {
            let (reuse, now) = used(&gaps);
            let until = reuse.until_next(ms(now + rest), ms(usual));
            let all = || gaps.iter().copied().chain([usual]);
            let (least, most) = (ms(all().min().unwrap()), ms(all().max().unwrap()));
            let near = ms(1);
            prop_assert!(until + near >= least && until <= most.max(ms(rest)) + near);
            prop_assert!(until == ms(rest) || ms(rest) <= 2 * until + near);
        }

        #[test]
        fn who_rests_longer_is_not_expected_sooner(
            gaps in prop::collection::vec(1..10_000_u64, 0..40),
            usual in 0..10_000_u64,
            rests in prop::collection::vec(0..100_000_u64, 2),
        ) {
            let (reuse, now) = used(&gaps);
            let [sooner, later] = [rests.iter().min(), rests.iter().max()].map(|rest| ms(now + rest.unwrap()));
            prop_assert!(reuse.until_next(sooner, ms(usual)) <= reuse.until_next(later, ms(usual)));
        }

        #[test]
        fn what_is_usual_lies_between_what_clients_are_used_at(
            clients in prop::collection::vec(prop::collection::vec(1..10_000_u64, 0..10), 0..10),
        ) {
            let usual = Reuse::usual(clients.iter().map(|gaps| used(gaps).0));
            let all = || clients.iter().flatten().copied();
            let (least, most) = (ms(all().min().unwrap_or(0)), ms(all().max().unwrap_or(0)));
            prop_assert!(usual + ms(1) >= least && usual <= most + ms(1));
        }
    }
}
