//! How a session sleeps. The word that it sleeps on is the client's to write, and one that writes it without posting anything
//! must not keep a thread of the worker awake: woken for nothing too often, a session sleeps where its client cannot reach it.

use crate::bucket::Bucket;
use std::time::{Duration, Instant};
use torpor_proto::ring::{Bell, Consumer, Control};

/// Wake-ups without a command that are nothing to wonder about: some at once, then so many a second. The worker's own are among
/// them.
const BURST: u32 = 256;
const PER_SECOND: u32 = 256;

/// How long a session sleeps at a time that its client cannot wake: a command that comes meanwhile waits so long.
const DEAF_NAP: Duration = Duration::from_millis(1);

/// The sleep of a session.
#[derive(Debug)]
pub(crate) struct Sleep {
    /// Wake-ups for nothing that are still bearable.
    bearable: Bucket,
    is_deaf: bool,
}

impl Sleep {
    /// Of a session that begins.
    pub(crate) fn new(now: Instant) -> Self {
        Self { bearable: Bucket::new(BURST, PER_SECOND, now), is_deaf: false }
    }

    /// Sleeps until there is a command, or somebody in the worker wants the session, for `nap` at most.
    pub(crate) fn sleep(&mut self, consumer: &Consumer, control: &Control, bell: &Bell, nap: Duration) {
        let began = Instant::now();
        if self.is_deaf {
            std::thread::park_timeout(nap.min(DEAF_NAP));
        } else {
            consumer.wait(control, bell, nap);
        }
        let now = Instant::now();
        self.note(control.is_drained() && now - began < nap, now);
    }

    /// Woken, for nothing or not.
    fn note(&mut self, for_nothing: bool, now: Instant) {
        if for_nothing || self.is_deaf {
            self.is_deaf = self.bearable.take(now).is_err();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_woken_for_nothing_again_and_again_is_deaf_for_a_while() {
        let begin = Instant::now();
        let mut sleep = Sleep::new(begin);
        for _ in 0..10 * BURST {
            sleep.note(false, begin);
        }
        for _ in 0..BURST {
            sleep.note(true, begin);
            assert!(!sleep.is_deaf);
        }
        sleep.note(true, begin);
        assert!(sleep.is_deaf);
        sleep.note(true, begin + DEAF_NAP);
        assert!(sleep.is_deaf);
        let later = begin + Duration::from_millis(10);
        sleep.note(true, later);
        assert!(!sleep.is_deaf, "a second has room for some");
    }
}
