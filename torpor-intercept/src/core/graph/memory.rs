//! Memory that graphs allocate. Its address is fixed when the node is made, and it is there as long as a graph that has the
//! node, or the program, which a launch gives it to and which gives it back with `cuMemFree`, `cuMemFreeAsync` or a launch of another
//! graph that frees it.

use crate::core::pool::{allocate_or_give_back, block_bytes};
use crate::core::stream::host_function;
use crate::core::{CudaResult, client, helper_thread};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use torpor_proto::error::CudaError;

/// What graphs have of a piece of memory.
#[derive(Debug)]
pub struct Held {
    /// Where it begins.
    pub address: u64,
    /// How long it is.
    pub bytes: u64,
}

/// Who has a piece of memory. Nobody has what is on its way back.
#[derive(Clone, Copy)]
struct Holders {
    bytes: u64,
    has_graph: bool,
    has_program: bool,
}

impl Holders {
    fn are_none(&self) -> bool {
        !self.has_graph && !self.has_program
    }
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
        if let Ok(Changed::Unused) = change(self.address, |holders| holders.has_graph = false) {
            // The process may be ending and the server gone: there is nobody to give it back to.
            let _ = give_back(self.address);
        }
    }
}

/// Whether a graph's memory begins there.
#[must_use]
pub fn is_held(address: u64) -> bool {
    let pieces = lock();
    let holders = pieces.as_ref().and_then(|pieces| pieces.by_address.get(&address));
    holders.is_some_and(|holders| !holders.are_none())
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
/// What freeing gives; `INVALID_VALUE` for what is on its way back.
pub(in crate::core) fn take_from_program(address: u64) -> CudaResult<bool> {
    let changed = change(address, |holders| holders.has_program = false)?;
    if let Changed::Unused = changed {
        give_back(address)?;
    }
    Ok(!matches!(changed, Changed::Nothing))
}

/// A launch that frees what another one gave to the program was posted. If no graph has the memory any more, it is given back
/// by a thread: that waits for the launch, which may be held behind a function that waits for the program.
pub(super) fn take_by_launch(address: u64) {
    if let Ok(Changed::Unused) = change(address, |holders| holders.has_program = false) {
        let thread = thread::Builder::new().name("torpor-memory".to_owned());
        // The process may be ending and the server gone: there is nobody to give it back to.
        if !helper_thread::start(thread, move || _ = give_back(address)) {
            let _ = give_back(address);
        }
    }
}

/// What has become of a piece of memory.
enum Changed {
    /// It is no graph's.
    Nothing,
    /// Somebody has it.
    Used,
    /// Nobody has it any more: it is to be given back.
    Unused,
}

/// Changes who has memory. What nobody has is counted no more, but known until it is given back, lest it be freed twice.
fn change(address: u64, how: impl FnOnce(&mut Holders)) -> CudaResult<Changed> {
    let mut pieces = lock();
    let Some(pieces) = pieces.as_mut() else { return Ok(Changed::Nothing) };
    let Some(holders) = pieces.by_address.get_mut(&address) else { return Ok(Changed::Nothing) };
    if holders.are_none() {
        return Err(CudaError::INVALID_VALUE);
    }
    how(holders);
    if !holders.are_none() {
        return Ok(Changed::Used);
    }
    pieces.bytes -= holders.bytes;
    Ok(Changed::Unused)
}

/// Gives back what nobody has, once nothing is held that uses it.
fn give_back(address: u64) -> CudaResult<()> {
    let client = client()?;
    host_function::wait_for_all()?;
    if let Some(pieces) = lock().as_mut() {
        pieces.by_address.remove(&address);
    }
    client.set_synchronizes_always(address, false);
    client.free_allocation(address)
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
