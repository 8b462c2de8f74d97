//! Handles: numbers that look like pointers, never null, never used twice.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::{CudaError, Result};

/// Objects of one kind, by handle.
#[derive(Debug)]
pub struct Table<T> {
    base: u64,
    issued: AtomicU64,
    entries: RwLock<HashMap<u64, Arc<T>>>,
}

/// Handles of one kind lie this far apart from those of the next.
const KIND_SPAN: u64 = 1 << 40;

impl<T> Table<T> {
    /// An empty table; `kind` is a small number of its own.
    pub fn new(kind: u64) -> Self {
        Self { base: (0x51 + kind) * KIND_SPAN, issued: AtomicU64::new(0), entries: RwLock::default() }
    }

    fn new_handle(&self) -> u64 {
        self.base + 16 * (self.issued.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Adds an object that needs no handle of its own.
    pub fn add(&self, object: Arc<T>) -> u64 {
        self.add_with(|_| object).0
    }

    /// Adds the object that `make` returns for its handle.
    pub fn add_with(&self, make: impl FnOnce(u64) -> Arc<T>) -> (u64, Arc<T>) {
        let handle = self.new_handle();
        let object = make(handle);
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.insert(handle, Arc::clone(&object));
        (handle, object)
    }

    /// The object behind a handle.
    pub fn find(&self, handle: u64) -> Result<Arc<T>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(&handle).cloned().ok_or(CudaError::INVALID_HANDLE)
    }

    /// Takes the object out.
    pub fn remove(&self, handle: u64) -> Result<Arc<T>> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.remove(&handle).ok_or(CudaError::INVALID_HANDLE)
    }

    /// Takes out the objects that `which` accepts.
    pub fn remove_all(&self, which: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.extract_if(|_, object| which(object)).map(|entry| entry.1).collect()
    }

    /// The handle of an object.
    pub fn handle_of(&self, object: &Arc<T>) -> Option<u64> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.iter().find(|entry| Arc::ptr_eq(entry.1, object)).map(|entry| *entry.0)
    }

    /// All objects there are now.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Whether this handle was given out, though its object may be gone.
    pub fn was_issued(&self, handle: u64) -> bool {
        let last = self.base + 16 * self.issued.load(Ordering::Relaxed);
        handle > self.base && handle <= last && handle.is_multiple_of(16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_never_used_twice() {
        let table = Table::new(3);
        let first = table.add(Arc::new("a"));
        assert_eq!(table.find(first).as_deref(), Ok(&"a"));
        assert!(table.remove(first).is_ok());
        let second = table.add(Arc::new("b"));
        assert_ne!(first, second);
        assert_eq!(table.find(first), Err(CudaError::INVALID_HANDLE));
        assert!(table.was_issued(first) && table.was_issued(second));
        assert!(!table.was_issued(second + 16) && !table.was_issued(0) && !table.was_issued(first + 1));
    }
}
