//! The server's place in the line for CPUs: a node with more busy programs than CPUs must not starve what serves them all.

use rustix::process::{getpriority_process, setpriority_process};

/// What the server and its workers run at, which inherit it: nine CPU seconds for one of a program at 0. Source: sched(7).
const NICE: i32 = -10;

/// Takes a better place than programs have. That takes CAP_SYS_NICE or RLIMIT_NICE: without, the server goes on as it is.
///
/// Call it before there are threads, for the kernel keeps the niceness of each.
pub fn raise() {
    if getpriority_process(None).is_ok_and(|nice| nice <= NICE) {
        return;
    }
    if let Err(error) = setpriority_process(None, NICE) {
        tracing::info!(
            "the server runs at the priority of ordinary programs ({error}): on a node whose CPUs are all busy give it \
             CAP_SYS_NICE"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_priority_is_never_lowered_and_raised_if_that_is_allowed() {
        // The kernel keeps it for each thread, so the other tests notice nothing.
        let before = getpriority_process(None).unwrap();
        let may = setpriority_process(None, before.min(NICE)).is_ok();
        raise();
        let after = getpriority_process(None).unwrap();
        assert!(after <= before && (!may || after <= NICE), "{before} became {after}");
    }
}
