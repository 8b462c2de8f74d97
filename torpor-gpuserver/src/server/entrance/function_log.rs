//! What is told of one function, which may want to fill the log: some lines at once, then one a second, and how many were
//! left out.

use crate::bucket::Bucket;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::time::sleep;

/// Lines that are told at once.
const BURST: u32 = 16;
const PER_SECOND: u32 = 1;

/// The lines of one function.
#[derive(Debug)]
pub struct FunctionLog {
    function: Arc<str>,
    lines: Mutex<Lines>,
}

#[derive(Debug)]
struct Lines {
    bucket: Bucket,
    left_out: u64,
}

impl FunctionLog {
    /// Nothing has been told yet.
    #[must_use]
    pub fn new(function: Arc<str>) -> Arc<Self> {
        let lines = Lines { bucket: Bucket::new(BURST, PER_SECOND, Instant::now()), left_out: 0 };
        Arc::new(Self { function, lines: Mutex::new(lines) })
    }

    /// Tells something by `line`, or counts it. Call it in a runtime.
    pub fn tell(self: &Arc<Self>, line: impl FnOnce()) {
        let mut lines = self.lines();
        if lines.left_out == 0 {
            match lines.bucket.take(Instant::now()) {
                Ok(()) => {
                    drop(lines);
                    return line();
                }
                Err(wait) => {
                    let log = self.clone();
                    tokio::spawn(async move {
                        sleep(wait).await;
                        log.tell_left_out();
                    });
                }
            }
        }
        lines.left_out += 1;
    }

    fn tell_left_out(&self) {
        let mut lines = self.lines();
        // The token that was waited for: nobody else takes one while lines are left out.
        let _ = lines.bucket.take(Instant::now());
        let left_out = std::mem::take(&mut lines.left_out);
        drop(lines);
        tracing::warn!(
            function = &*self.function,
            "{left_out} more lines about this function were left out: it comes and goes, or is refused, too often"
        );
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn a_flood_is_counted_and_no_line_is_lost_from_the_count() {
        let log = FunctionLog::new("f".into());
        let told = AtomicU32::new(0);
        for _ in 0..BURST + 100 {
            log.tell(|| {
                told.fetch_add(1, Ordering::Relaxed);
            });
        }
        let (told, left_out) = (told.load(Ordering::Relaxed), log.lines().left_out);
        assert_eq!(u64::from(told) + left_out, u64::from(BURST) + 100);
        assert!(told >= BURST && left_out > 0, "{told}");
        log.tell_left_out();
        assert_eq!(log.lines().left_out, 0);
    }
}
