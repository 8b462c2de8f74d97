//! How long a thread that has something to do may have to wait for a CPU: on a node whose CPUs are all taken, a program that
//! says nothing for a millisecond is not idle.

use crate::worker::sync::lock;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long a thread runs before another one has its CPU. Source: sched(7) and the kernel's documentation of EEVDF: 3 ms.
const SLICE: Duration = Duration::from_millis(3);

/// Sessions hash at the same time on one of so many CPUs each: one alone would leave the pool full of equal chunks while hundreds of
/// functions start.
const HASHING_PART: u32 = 8;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The line for the machine's CPUs.
#[derive(Debug)]
pub(crate) struct CpuLine {
    cpus: u32,
    last: Mutex<Option<(Instant, Duration)>>,
}

impl CpuLine {
    /// For the CPUs that this process may use.
    pub(crate) fn new() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
        Self { cpus: u32::try_from(cpus).unwrap_or(u32::MAX), last: Mutex::default() }
    }

    /// Places for sessions that hash, one of which each holds meanwhile.
    pub(crate) fn places_to_hash(&self) -> Box<[Mutex<()>]> {
        (0..(self.cpus / HASHING_PART).max(1)).map(|_| Mutex::default()).collect()
    }

    /// How long a thread at the end of the line may wait; nothing while there are CPUs to spare, or if nobody says.
    pub(crate) fn delay(&self) -> Duration {
        let mut last = lock(&self.last);
        match *last {
            Some((looked, delay)) if looked.elapsed() < LOOK_EVERY => delay,
            _ => {
                let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
                let delay = runnable(&load).map_or(Duration::ZERO, |threads| wait(threads, self.cpus));
                *last = Some((Instant::now(), delay));
                delay
            }
        }
    }
}

/// Those before the last in the line have a slice each.
fn wait(threads: u32, cpus: u32) -> Duration {
    SLICE * threads.saturating_sub(cpus).div_ceil(cpus)
}

/// The threads that run or could. Source: proc(5), the fourth field of `/proc/loadavg`.
fn runnable(loadavg: &str) -> Option<u32> {
    loadavg.split(' ').nth(3)?.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threads_that_could_run_are_read() {
        assert_eq!(runnable("4.76 2.84 1.54 7/159 31067\n"), Some(7));
        assert_eq!(runnable(""), None);
        assert_eq!(runnable("4.76 2.84 1.54 many/159 31067\n"), None);
    }

    #[test]
    fn nobody_waits_where_cpus_are_to_spare() {
        assert_eq!([0, 1, 2].map(|threads| wait(threads, 2)), [Duration::ZERO; 3]);
        assert_eq!(wait(3, 2), SLICE);
        assert_eq!(wait(20, 2), 9 * SLICE);
        let line = CpuLine::new();
        assert_eq!(line.delay(), line.delay(), "looked at once");
        assert!(!line.places_to_hash().is_empty(), "one at least");
    }
}
