//! Fork: a child of a process that used CUDA has no CUDA, as with NVIDIA's driver.

use std::os::fd::RawFd;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

static FORKED: AtomicBool = AtomicBool::new(false);
static LIFELINE: AtomicI32 = AtomicI32::new(-1);

/// Whether this process is the child of one that was a client.
#[inline]
pub(super) fn is_forked_child() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// From now on, children of this process are told apart and do not keep its lifeline open.
pub(super) fn watch(lifeline: RawFd) {
    static ONCE: Once = Once::new();
    LIFELINE.store(lifeline, Ordering::Relaxed);
    // SAFETY: the handler is a plain function of this library, which is never unloaded, and only stores and closes.
    ONCE.call_once(|| unsafe {
        libc::pthread_atfork(None, None, Some(in_child));
    });
}

extern "C" fn in_child() {
    FORKED.store(true, Ordering::Relaxed);
    // SAFETY: close(2) may be called after fork; the descriptor is the parent's lifeline, which no code of the child
    // reaches any more. Open in the child it would keep a dead parent alive for the server.
    unsafe { libc::close(LIFELINE.load(Ordering::Relaxed)) };
}
