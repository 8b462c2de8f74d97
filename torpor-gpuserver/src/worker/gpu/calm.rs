//! A moment in which the whole GPU may be waited for.
//!
//! Page-locked memory that is unlocked, and an image that is unloaded, wait for every kernel of the context, and the driver takes nobody
//! else's calls meanwhile (seen on an H200). So a client's end would keep all others waiting for a neighbour's long kernel, and for ever
//! where that kernel itself waits for one of them. A client without work, or that waits for its turn or for memory, has no
//! kernel, and one whose work has just begun is a short request, most likely.

use crate::worker::gpu::Links;
use crate::worker::sync::lock;
use std::time::{Duration, Instant};

/// Work that has lasted for so long may be a long kernel.
const SHORT: Duration = Duration::from_millis(50);

/// Between two looks.
const NAP: Duration = Duration::from_millis(2);

/// Waits for it, not beyond this moment.
pub(crate) fn wait_for_calm(links: &Links, deadline: Instant) {
    while !is_calm(links) && Instant::now() < deadline {
        std::thread::sleep(NAP);
    }
}

/// Whether it is so calm that what nobody waits for may be done: no kernel runs.
pub(crate) fn is_idle(links: &Links) -> bool {
    !lock(links).values().any(|link| link.may_run())
}

fn is_calm(links: &Links) -> bool {
    !lock(links).values().any(|link| link.may_run() && link.work.lasts() > SHORT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::mailbox::Link;
    use std::sync::Arc;
    use torpor_proto::layout::AddressRange;

    /// Whether it has come until then.
    fn wait_until(links: &Links, deadline: Instant) -> bool {
        wait_for_calm(links, deadline);
        is_calm(links)
    }

    #[test]
    fn a_client_that_has_worked_for_long_is_waited_for() {
        let links = Links::default();
        let link = Arc::new(Link::new(1, "f", AddressRange { address: 0, bytes: 0 }));
        lock(&links).insert(1, link.clone());
        assert!(is_calm(&links), "it has no work");
        link.work.begin();
        assert!(is_calm(&links), "a short request, perhaps");
        assert!(is_idle(&links), "without a turn it has no kernel");
        std::thread::sleep(2 * SHORT);
        assert!(is_calm(&links), "it waits for its turn, or for memory");
        link.turn.begin();
        assert!(!is_calm(&links) && !is_idle(&links));
        assert!(!wait_until(&links, Instant::now() + SHORT));
        let waiting = std::thread::spawn(move || wait_until(&links, Instant::now() + 1000 * SHORT));
        std::thread::sleep(SHORT);
        assert!(!waiting.is_finished());
        link.work.end();
        assert_eq!(waiting.join().ok(), Some(true));
    }
}
