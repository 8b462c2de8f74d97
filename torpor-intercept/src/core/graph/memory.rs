//! Memory that graphs allocate. Its address is fixed when the node is made, and it is there as long as a graph that has the
//! node, or the program, which a launch gives it to and which gives it back with `cuMemFree` or `cuMemFreeAsync`.

use crate::core::pool::{allocate_or_give_back, block_bytes};
use crate::core::{CudaResult, client};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use torpor_proto::error::CudaError;

/// What graphs have of a piece of memory.
#[derive(Debug)]
pub struct Held {
    /// Where it begins.
    pub address: u64,
    /// How long it is.
    pub bytes: u64,
}

/// Who has a piece of memory.
#[derive(Clone, Copy)]
struct Holders {
    bytes: u64,
    has_graph: bool,
    has_program: bool,
}

#[derive(Default)]
struct Pieces {
    by_address: HashMap<u64, Holders>,
    bytes: u64,
    most_bytes: u64,
}

static PIECES: Mutex<Option<Pieces>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<Pieces>> {
    PIECES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    /// Memory for a graph.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`; `INVALID_VALUE` for no bytes.
    pub fn new(bytes: u64) -> CudaResult<Arc<Self>> {
        if bytes == 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        let bytes = block_bytes(bytes).ok_or(CudaError::OUT_OF_MEMORY)?;
        let address = allocate_or_give_back(client()?, bytes)?;
        let mut pieces = lock();
        let pieces = pieces.get_or_insert_default();
        pieces.by_address.insert(address, Holders { bytes, has_graph: true, has_program: false });
        pieces.bytes += bytes;
        pieces.most_bytes = pieces.most_bytes.max(pieces.bytes);
        Ok(Arc::new(Self { address, bytes }))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The process may be ending and the server gone: there is nobody to give it back to.
        let _ = change(self.address, |holders| holders.has_graph = false);
    }
}

/// Whether a graph's memory begins there.
#[must_use]
pub fn is_held(address: u64) -> bool {
    lock().as_ref().is_some_and(|pieces| pieces.by_address.contains_key(&address))
}

/// A launch gave memory to the program.
pub(super) fn give_to_program(address: u64) {
    if let Some(holders) = lock().as_mut().and_then(|pieces| pieces.by_address.get_mut(&address)) {
        holders.has_program = true;
    }
}

/// Takes memory back that a launch gave to the program; false if it is no graph's.
///
/// # Errors
/// What freeing gives.
pub(in crate::core) fn take_from_program(address: u64) -> CudaResult<bool> {
    change(address, |holders| holders.has_program = false)
}

/// Changes who has memory, and gives it back if nobody has. False if it is no graph's.
fn change(address: u64, how: impl FnOnce(&mut Holders)) -> CudaResult<bool> {
    {
        let mut pieces = lock();
        let Some(pieces) = pieces.as_mut() else { return Ok(false) };
        let Some(holders) = pieces.by_address.get_mut(&address) else { return Ok(false) };
        how(holders);
        let Holders { bytes, has_graph, has_program } = *holders;
        if has_graph || has_program {
            return Ok(true);
        }
        pieces.by_address.remove(&address);
        pieces.bytes -= bytes;
    }
    client()?.free(address).map(|()| true)
}

/// What graphs have of the device's memory (`cuDeviceGetGraphMemAttribute`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amounts {
    /// In bytes.
    pub now_bytes: u64,
    /// The most that it was, in bytes.
    pub most_bytes: u64,
}

/// What graphs have now, and had at most.
#[must_use]
pub fn amounts() -> Amounts {
    let pieces = lock();
    let (now_bytes, most_bytes) = pieces.as_ref().map_or((0, 0), |pieces| (pieces.bytes, pieces.most_bytes));
    Amounts { now_bytes, most_bytes }
}

/// Counts the most from now on.
pub fn reset_most() {
    if let Some(pieces) = lock().as_mut() {
        pieces.most_bytes = pieces.bytes;
    }
}
