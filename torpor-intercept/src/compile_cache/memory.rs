//! What is kept for this process alone. The results used last stay.

use super::key::Key;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, TryLockError};

pub(super) struct Memory {
    max_bytes: u64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    results: HashMap<[u8; 32], KeptResult>,
    bytes: u64,
    uses: u64,
}

struct KeptResult {
    code: Vec<u8>,
    last_use: u64,
}

impl Memory {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self { max_bytes, kept: Mutex::default() }
    }

    /// None while another thread has it, which in the child of a fork may be for ever: the compiler then does its work.
    fn try_lock(&self) -> Option<MutexGuard<'_, Kept>> {
        match self.kept.try_lock() {
            Ok(kept) => Some(kept),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(super) fn find(&self, key: &Key) -> Option<Vec<u8>> {
        let mut kept = self.try_lock()?;
        kept.uses += 1;
        let now = kept.uses;
        let result = kept.results.get_mut(key.bytes())?;
        result.last_use = now;
        Some(result.code.clone())
    }

    pub(super) fn put(&self, key: &Key, code: &[u8]) {
        let bytes = code.len() as u64;
        if bytes > self.max_bytes {
            return;
        }
        let Some(mut kept) = self.try_lock() else { return };
        kept.uses += 1;
        let result = KeptResult { code: code.to_owned(), last_use: kept.uses };
        let before = kept.results.insert(*key.bytes(), result);
        kept.bytes += bytes;
        kept.bytes -= before.map_or(0, |before| before.code.len() as u64);
        while kept.bytes > self.max_bytes {
            let oldest = kept.results.iter().min_by_key(|(_, result)| result.last_use).map(|(key, _)| *key);
            let Some(removed) = oldest.and_then(|key| kept.results.remove(&key)) else { break };
            kept.bytes -= removed.code.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::tests::key;
    use super::*;

    #[test]
    fn the_results_used_last_stay() {
        let memory = Memory::new(30);
        for number in 1..=3 {
            memory.put(&key(number), &[number; 10]);
        }
        assert_eq!(memory.find(&key(1)), Some(vec![1; 10]));
        memory.put(&key(4), &[4; 10]);
        assert_eq!(memory.find(&key(2)), None);
        for number in [1, 3, 4] {
            assert_eq!(memory.find(&key(number)), Some(vec![number; 10]));
        }
        memory.put(&key(4), &[5; 30]);
        assert_eq!(memory.find(&key(4)), Some(vec![5; 30]));
        assert_eq!(memory.find(&key(1)), None);
    }

    #[test]
    fn what_is_larger_than_all_room_is_not_kept() {
        let memory = Memory::new(30);
        memory.put(&key(1), &[1; 10]);
        memory.put(&key(2), &[2; 31]);
        assert_eq!((memory.find(&key(1)), memory.find(&key(2))), (Some(vec![1; 10]), None));
    }
}
