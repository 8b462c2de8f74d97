//! Threads of this library in the program's process. Signals that are sent to the process go to the program's own threads.

use std::thread;

/// Signals that a thread causes itself. The program's handlers for them must run, for instance if it gives memory its
/// contents when it is first touched.
const OWN_SIGNALS: [libc::c_int; 5] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];

/// Starts a thread that nobody joins. False if there can be none.
pub(super) fn start(thread: thread::Builder, body: impl FnOnce() + Send + 'static) -> bool {
    let old = block_signals();
    let is_started = thread.spawn(body).is_ok();
    // SAFETY: a mask that pthread_sigmask gave.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const old, std::ptr::null_mut()) };
    is_started
}

/// Blocks what others send; threads that are started now inherit that. Returns the mask from before.
fn block_signals() -> libc::sigset_t {
    // SAFETY: a signal set is plain data, all zeros is the empty one, and the pointers are to live sets.
    unsafe {
        let (mut blocked, mut old) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut blocked);
        for signal in OWN_SIGNALS {
            libc::sigdelset(&raw mut blocked, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const blocked, &raw mut old);
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// The calling thread's mask.
    fn blocked() -> impl Fn(libc::c_int) -> bool {
        // SAFETY: the set is filled in by pthread_sigmask.
        let mask = unsafe {
            let mut mask = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut mask);
            mask
        };
        // SAFETY: the set was filled in.
        move |signal| unsafe { libc::sigismember(&raw const mask, signal) == 1 }
    }

    #[test]
    fn helpers_leave_signals_to_the_program() {
        let before = blocked()(libc::SIGTERM);
        let (sender, receiver) = mpsc::channel();
        assert!(start(thread::Builder::new(), move || sender.send(blocked()).unwrap()));
        let is_blocked = receiver.recv().unwrap();
        assert!([libc::SIGTERM, libc::SIGCHLD, libc::SIGPROF].into_iter().all(&is_blocked));
        assert!(!OWN_SIGNALS.into_iter().any(is_blocked));
        assert_eq!(blocked()(libc::SIGTERM), before, "the caller's mask is as it was");
    }
}
