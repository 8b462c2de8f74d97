//! Tables that are refused, and those that nobody has asked for yet.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::uuid;

/// Refused on purpose: what asks for them works without.
const KNOWN: [([u8; 16], &str); 2] = [
    (
        uuid("da9151d3-3ae6-cc41-a5c0-4f26d533e328"),
        "NVRTC's compile cache, which CUDA_CACHE_DISABLE switches off",
    ),
    (uuid("69a28e9f-2449-8b47-b030-c5da330ea4e9"), "NVML's"),
];

/// So many different tables are named in the log at most.
const MAX_NAMED: usize = 64;

static NAMED: Mutex<Option<HashSet<[u8; 16]>>> = Mutex::new(None);

/// Names a refused table in the log, the first time.
pub(super) fn note(id: [u8; 16]) {
    let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
    let named = named.get_or_insert_with(HashSet::new);
    if named.len() >= MAX_NAMED || !named.insert(id) {
        return;
    }
    let what = KNOWN.iter().find(|(known, _)| *known == id).map_or("which is unknown", |(_, what)| what);
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    crate::log::write(&format!("the private table {id} ({what}) is refused"));
}
