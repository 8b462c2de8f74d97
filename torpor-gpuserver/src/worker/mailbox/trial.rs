//! A client that does again what it did as one of several that may have ended their worker: it has the GPU to itself meanwhile, so that
//! nobody else can have ended this one.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long others wait for it: as long as the server lets those wait that are tried after it.
const LONGEST: Duration = Duration::from_secs(5);

/// Whether a client is tried.
#[derive(Debug, Default)]
pub(crate) struct Trial {
    since: OnceLock<Instant>,
    is_over: AtomicBool,
}

impl Trial {
    /// It is.
    pub(crate) fn begin(&self) {
        let _ = self.since.set(Instant::now());
    }

    /// It has done again what it did.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Whether nobody else is to be active.
    pub(crate) fn is_on(&self) -> bool {
        let is_young = |since: &Instant| since.elapsed() < LONGEST;
        self.since.get().is_some_and(is_young) && !self.is_over.load(Ordering::Relaxed)
    }
}
