//! The bell of a consumer: how its own process wakes it for something else than a record.
//!
//! `consumer_sleeping` is the producer's to write as well, so it does not say whether the consumer sleeps. The bell is private memory
//! of the consumer's process.
//!
//! SYNC POINT `bell`: the consumer says that it is about to sleep, fences, and looks whether the bell has rung; who rings says so,
//! fences, and looks whether the consumer sleeps. One of the two sees the other.

use super::Control;
use crate::sync::{AtomicU32, Ordering, fence, futex_wake};

/// The bell of one consumer.
#[derive(Debug, Default)]
pub struct Bell {
    rung: AtomicU32,
    asleep: AtomicU32,
}

impl Bell {
    /// Wakes the consumer, or keeps it from its next sleep: it looks at everything that was written before.
    pub fn ring(&self, control: &Control) {
        self.rung.store(1, Ordering::Release);
        // SYNC POINT bell
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) != 0 {
            // Who is about to sleep on it finds it changed.
            control.consumer_sleeping.0.swap(0, Ordering::SeqCst);
            futex_wake(&control.consumer_sleeping.0);
        }
    }

    /// The consumer is about to sleep, and fences before it looks whether the bell [has rung](Self::has_rung).
    pub(super) fn lie_down(&self) {
        self.asleep.store(1, Ordering::Relaxed);
    }

    pub(super) fn has_rung(&self) -> bool {
        self.rung.load(Ordering::Relaxed) != 0
    }

    /// The consumer is awake, and is about to look at everything.
    pub(super) fn get_up(&self) {
        self.asleep.store(0, Ordering::Relaxed);
        self.rung.swap(0, Ordering::AcqRel);
    }
}
