//! The warden: a thread that looks at kernels that have to end in time where their own session cannot.
//!
//! The driver makes whoever finds a kernel for the first time, or unloads something, wait for all kernels of the context, and holds
//! everybody else's calls back meanwhile. So the session whose kernel does not end may be in a call that does not return before that
//! kernel ends. The warden makes no call of the driver's, and takes no lock that anybody holds during one.

use crate::worker::gpu::Shared;
use crate::worker::sync::lock;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Between two looks.
const NAP: Duration = Duration::from_millis(50);

/// Starts the thread, which ends with the process, or when the context is lost.
pub(super) fn start(shared: &Arc<Shared>) -> io::Result<()> {
    let shared = shared.clone();
    std::thread::Builder::new().name("warden".to_owned()).spawn(move || watch(&shared)).map(drop)
}

fn watch(shared: &Shared) {
    let mut looked = Instant::now();
    while shared.lost().is_none() {
        std::thread::sleep(NAP);
        // A process that was stopped meanwhile has sessions that were, too, and say so at once.
        let was_stopped = looked.elapsed() > 3 * NAP;
        looked = Instant::now();
        if !was_stopped {
            look(shared, looked);
        }
    }
}

/// Ends the worker if a kernel runs for too long whose session is stuck. Of several it is the one that is sure, and then the first.
fn look(shared: &Shared, now: Instant) {
    let overdue = shared.all_links().into_iter().filter_map(|link| {
        let overstays = shared.overstays.load(Ordering::Relaxed);
        let excuses = |first| shared.overstays_before(&link, first);
        let overdue = lock(&link.watched).look_for_stuck(now, overstays, excuses)?;
        Some((link, overdue))
    });
    if let Some((link, overdue)) = overdue.min_by_key(|(_, overdue)| (!overdue.is_certain, overdue.since)) {
        shared.condemn(&link, &overdue);
    }
}
