//! The usual way: how long a client's memory usually takes to come to this GPU.
//!
//! Clients that take turns because they do not fit beside each other have turns of one length, whoever they are: were each as long as its
//! own memory takes to come, the smallest would wait for turns of the largest, and have none worth speaking of.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the latest counts of all, as one of so many.
const LATEST: u64 = 8;

/// Of the latest, which count most. Clients tell of theirs beside each other: one may be lost.
#[derive(Debug, Default)]
pub(crate) struct UsualWay {
    nanoseconds: AtomicU64,
}

impl UsualWay {
    /// One has come, in this time.
    pub(crate) fn note(&self, took: Duration) {
        let (latest, usual) =
            (u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), self.nanoseconds.load(Ordering::Relaxed));
        let mean = match usual {
            0 => latest,
            usual => usual - usual / LATEST + latest / LATEST,
        };
        self.nanoseconds.store(mean, Ordering::Relaxed);
    }

    /// How long it takes; nothing before any has come.
    pub(crate) fn usual(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_the_latest_were() {
        let (way, ms) = (UsualWay::default(), Duration::from_millis);
        assert_eq!(way.usual(), Duration::ZERO);
        way.note(ms(8));
        assert_eq!(way.usual(), ms(8));
        way.note(ms(16));
        assert_eq!(way.usual(), ms(9));
        (0..100).for_each(|_| way.note(ms(80)));
        assert!((ms(79)..=ms(80)).contains(&way.usual()), "{:?}", way.usual());
    }
}
