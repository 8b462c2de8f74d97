//! Where clients that may be dangerous are made anew, one at a time: those first that have waited for longest.
//!
//! A trial's suspects come here one after the other. Where workers are lost faster than suspects can be tried, each loss makes new ones; if these had
//! their turns in the order in which they ask, the last suspect of a long trial would wait for many rounds of all younger trials.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The bench of a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Bench(Arc<Mutex<Line>>);

#[derive(Debug, Default)]
struct Line {
    is_taken: bool,
    /// Those that wait, by since when, and in the order in which they came.
    waiting: BTreeMap<(Instant, u64), oneshot::Sender<Place>>,
    came: u64,
}

/// The place on a bench, until this is dropped.
#[derive(Debug)]
pub(super) struct Place(Bench);

impl Bench {
    /// Waits for the place, as one that has waited since then.
    pub(super) async fn take(&self, since: Instant) -> Place {
        let comes = {
            let mut line = self.line();
            if !line.is_taken {
                line.is_taken = true;
                return Place(self.clone());
            }
            let (place, comes) = oneshot::channel();
            line.came += 1;
            let key = (since, line.came);
            line.waiting.insert(key, place);
            comes
        };
        // Whoever is in the line keeps its sender until it has the place.
        comes.await.expect("a place is given, not taken away")
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let next = {
            let mut line = self.0.line();
            let next = line.waiting.pop_first();
            line.is_taken = next.is_some();
            next
        };
        if let Some((_, next)) = next {
            // One that waits no longer drops the place at once.
            let _ = next.send(Place(self.0.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn who_has_waited_longest_is_next_and_who_has_gone_is_passed_over() {
        let (bench, now) = (Bench::default(), Instant::now());
        let since = move |seconds| now + Duration::from_secs(seconds);
        let first = bench.take(since(9)).await;
        let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
        let wait = |name: u64, at: u64| {
            let (bench, told) = (bench.clone(), told.clone());
            tokio::spawn(async move {
                let _place = bench.take(since(at)).await;
                told.send(name).unwrap();
            })
        };
        let waiting = [wait(3, 3), wait(1, 1), wait(0, 0), wait(2, 2), wait(4, 3)];
        while bench.line().waiting.len() < waiting.len() {
            tokio::task::yield_now().await;
        }
        waiting[2].abort();
        while !waiting[2].is_finished() {
            tokio::task::yield_now().await;
        }
        drop(first);
        for expected in [1, 2, 3, 4] {
            assert_eq!(order.recv().await, Some(expected));
        }
        for waits in waiting {
            // The one that was aborted has nothing to say.
            let _ = waits.await;
        }
        drop(bench.take(now).await);
    }
}
