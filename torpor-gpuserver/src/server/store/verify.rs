//! Checking on request that the store still holds what it says it holds.

use super::{Store, index::Known};
use crate::chunk::CHUNK_BYTES;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads that hash; the server has other things to do.
const MAX_THREADS: usize = 8;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Chunks that there are.
    pub chunks: usize,
    /// Of those, how many were checked: their content is known, and they stayed where they were meanwhile.
    pub checked: usize,
    /// What was checked.
    pub checked_bytes: u64,
    /// Chunks that more than one reference has.
    pub shared: usize,
    /// Chunks in files.
    pub spilled: usize,
    /// Chunks whose content is not what it should be: what and where, whose, and why; for people.
    pub damaged: Vec<String>,
    /// Where the bookkeeping contradicts itself, for people.
    pub contradictions: Vec<String>,
}

impl Report {
    /// That of both.
    pub(in crate::server) fn with(mut self, other: Self) -> Self {
        self.chunks += other.chunks;
        self.checked += other.checked;
        self.checked_bytes += other.checked_bytes;
        self.shared += other.shared;
        self.spilled += other.spilled;
        self.damaged.extend(other.damaged);
        self.contradictions.extend(other.contradictions);
        self
    }
}

impl Store {
    /// Hashes every chunk whose content is known, in memory and in files, and checks the bookkeeping. Takes as long as
    /// reading all of it does.
    pub async fn verify(self: &Arc<Self>) -> Report {
        let (known, usage, contradictions) = {
            let state = self.state();
            (state.index.known(), state.index.usage(), state.index.contradictions())
        };
        let (chunks, shared, spilled) = (usage.chunks, usage.shared, usage.spilled);
        let mut report = Report { chunks, shared, spilled, contradictions, ..Report::default() };
        let store = self.clone();
        match tokio::task::spawn_blocking(move || store.check_all(&known)).await {
            Ok((checked, damaged)) => {
                report.checked = checked;
                report.checked_bytes = checked as u64 * CHUNK_BYTES;
                report.damaged = damaged;
            }
            Err(error) => report.contradictions.push(format!("the check did not end: {error}")),
        }
        report
    }

    fn check_all(&self, known: &[Known]) -> (usize, Vec<String>) {
        let next = AtomicUsize::new(0);
        let work = || {
            let (mut checked, mut damaged) = (0, Vec::new());
            while let Some(chunk) = known.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.check(chunk) {
                    Some(Ok(())) => checked += 1,
                    Some(Err(reason)) => {
                        checked += 1;
                        damaged.push(reason);
                    }
                    None => {}
                }
                if self.ending.load(Ordering::Relaxed) {
                    break;
                }
            }
            (checked, damaged)
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        std::thread::scope(|scope| {
            let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let (mut checked, mut damaged) = work();
            for helper in helpers {
                if let Ok((more, further)) = helper.join() {
                    checked += more;
                    damaged.extend(further);
                }
            }
            damaged.sort();
            (checked, damaged)
        })
    }

    /// Checks one chunk; `None` if it moved meanwhile.
    fn check(&self, known: &Known) -> Option<Result<(), String>> {
        let reason = match (known.slot, &self.files) {
            (Some(slot), _) => {
                let memory = self.state().find_memory(self.slab_slots, slot)?;
                (memory.hash() != known.hash).then(|| format!("its content in slot {slot} has changed"))
            }
            (None, Some(files)) => files.read(known.chunk, known.hash).err().map(|error| error.to_string()),
            (None, None) => None,
        };
        let state = self.state();
        if !state.index.still(known) {
            return None;
        }
        let Some(reason) = reason else { return Some(Ok(())) };
        let mut functions: Vec<_> =
            state.index.referrers(known.chunk).into_iter().map(|client| state.function(client)).collect();
        functions.dedup();
        Some(Err(format!("chunk {} of function {}: {reason}", known.chunk, functions.join(", "))))
    }
}
