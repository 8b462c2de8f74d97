//! Long copies between places of host memory, by several threads: one core copies 7 to 9 GB/s, the bus takes 55.
//!
//! The helpers are started with the first long copy, as many as the process may use processors and three at most, and sleep
//! between copies. Where no thread can be started, the caller copies alone. In the child of a fork, which has no CUDA,
//! nobody copies.

use super::helper_thread;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Shorter copies are over before a helper is awake.
const LONG_BYTES: usize = 1 << 20;

/// What a thread takes at a time.
const PIECE_BYTES: usize = 128 << 10;

/// Four threads copy about half of what the bus takes; more would take processors from others for little.
const MOST_HELPERS: usize = 3;

/// How long a helper looks out for the next copy before it sleeps: long copies are staged part by part.
const SPIN: Duration = Duration::from_micros(100);

static COPIERS: Copiers = Copiers {
    open: Mutex::new(Open { tasks: Vec::new(), sleepers: 0 }),
    work: Condvar::new(),
    begun: AtomicUsize::new(0),
};

struct Copiers {
    open: Mutex<Open>,
    work: Condvar,
    /// Copies that were begun so far.
    begun: AtomicUsize,
}

struct Open {
    tasks: Vec<Arc<Task>>,
    sleepers: usize,
}

/// A copy that any thread may take pieces of.
struct Task {
    to: *mut u8,
    from: *const u8,
    bytes: usize,
    next: AtomicUsize,
    copied: AtomicUsize,
}

// SAFETY: the ranges may be used by any thread until `copy`, whose caller promises that, returns; every piece is taken once.
unsafe impl Send for Task {}
// SAFETY: as above.
unsafe impl Sync for Task {}

/// Copies bytes.
///
/// # Safety
/// As [`std::ptr::copy_nonoverlapping`], and the ranges may be used by other threads meanwhile.
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, bytes: usize) {
    if bytes < LONG_BYTES || helpers() == 0 {
        // SAFETY: the caller's promise.
        return unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) };
    }
    let task = Arc::new(Task { to, from, bytes, next: AtomicUsize::new(0), copied: AtomicUsize::new(0) });
    COPIERS.offer(&task);
    task.work();
    COPIERS.lock().tasks.retain(|other| !Arc::ptr_eq(other, &task));
    task.wait();
}

/// How many helpers there are.
fn helpers() -> usize {
    static HELPERS: OnceLock<usize> = OnceLock::new();
    *HELPERS.get_or_init(|| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        start(MOST_HELPERS.min(processors - 1))
    })
}

fn start(helpers: usize) -> usize {
    let start_one = |_: &usize| {
        let thread = std::thread::Builder::new().name("torpor-copy".to_owned());
        helper_thread::start(thread, || COPIERS.help())
    };
    (0..helpers).take_while(start_one).count()
}

impl Copiers {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offer(&self, task: &Arc<Task>) {
        let mut open = self.lock();
        open.tasks.push(task.clone());
        let wakes = open.sleepers > 0;
        drop(open);
        self.begun.fetch_add(1, Ordering::Relaxed);
        if wakes {
            self.work.notify_all();
        }
    }

    /// A helper's life.
    fn help(&self) {
        loop {
            let begun = self.begun.load(Ordering::Relaxed);
            let task = self.lock().tasks.iter().find(|task| task.is_open()).cloned();
            match task {
                Some(task) => task.work(),
                None => self.look_out(begun),
            }
        }
    }

    /// Returns when a copy was begun since then.
    fn look_out(&self, begun: usize) {
        let since = Instant::now();
        while since.elapsed() < SPIN {
            if self.begun.load(Ordering::Relaxed) != begun {
                return;
            }
            std::hint::spin_loop();
        }
        let mut open = self.lock();
        open.sleepers += 1;
        while !open.tasks.iter().any(|task| task.is_open()) {
            open = self.work.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
        open.sleepers -= 1;
    }
}

impl Task {
    fn is_open(&self) -> bool {
        self.next.load(Ordering::Relaxed) < self.bytes
    }

    fn work(&self) {
        loop {
            let offset = self.next.fetch_add(PIECE_BYTES, Ordering::Relaxed);
            if offset >= self.bytes {
                return;
            }
            let bytes = PIECE_BYTES.min(self.bytes - offset);
            // SAFETY: inside the ranges, see `copy`, which waits for this piece.
            unsafe { std::ptr::copy_nonoverlapping(self.from.add(offset), self.to.add(offset), bytes) };
            // Release: `wait` sees the bytes.
            self.copied.fetch_add(bytes, Ordering::Release);
        }
    }

    /// Waits for pieces that helpers have taken. One takes microseconds, unless its thread has no processor.
    fn wait(&self) {
        let mut attempts = 0_u32;
        while self.copied.load(Ordering::Acquire) < self.bytes {
            attempts = attempts.saturating_add(1);
            if attempts < 10_000 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(bytes: usize, seed: usize) -> Vec<u8> {
        (0..bytes).map(|index| (index.wrapping_mul(31).wrapping_add(seed) >> 3) as u8).collect()
    }

    #[test]
    fn copies_of_any_length_are_whole_also_at_once() {
        assert!(start(2) == 2, "no threads");
        std::thread::scope(|scope| {
            for seed in 0..4 {
                scope.spawn(move || {
                    for bytes in [0, 1, LONG_BYTES - 1, LONG_BYTES, LONG_BYTES + 1, 5 * LONG_BYTES + 12_345] {
                        let (from, mut to) = (numbers(bytes, seed), vec![0; bytes + 1]);
                        // SAFETY: two vectors of at least this length, for this thread alone.
                        unsafe { copy(from.as_ptr(), to.as_mut_ptr(), bytes) };
                        assert!(to[..bytes] == from && to[bytes] == 0, "{bytes} bytes");
                    }
                });
            }
        });
        assert!(COPIERS.lock().tasks.is_empty());
    }
}
