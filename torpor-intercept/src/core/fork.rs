//! Fork: a child of a process that used CUDA has no CUDA, as with NVIDIA's driver.

use super::descriptor::DescriptorIdentity;
use super::lifeline::Lifeline;
use super::registered;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Once, OnceLock};

static FORKED: AtomicBool = AtomicBool::new(false);
static LIFELINE: OnceLock<DescriptorIdentity> = OnceLock::new();

/// Whether this process is the child of one that was a client.
#[inline]
pub(crate) fn is_forked_child() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// From now on, children of this process are told apart, do not keep its lifeline open and share no memory with it.
pub(super) fn watch(lifeline: &Lifeline) {
    static ONCE: Once = Once::new();
    if let Some(identity) = lifeline.identity() {
        let _ = LIFELINE.set(identity);
    }
    // SAFETY: the handler is a plain function of this library, which is never unloaded, and makes system calls alone.
    ONCE.call_once(|| unsafe {
        libc::pthread_atfork(None, None, Some(in_child));
    });
}

extern "C" fn in_child() {
    FORKED.store(true, Ordering::Relaxed);
    // The program may have closed it, and have a file of its own there.
    if let Some(number) = LIFELINE.get().and_then(|lifeline| lifeline.number()) {
        // SAFETY: close(2) may be called after fork; the descriptor is the parent's lifeline, which no code of the child
        // reaches any more. Open in the child it would keep a dead parent alive for the server.
        unsafe { libc::close(number) };
    }
    registered::make_private_in_child();
}
