//! Memory that the driver takes itself: that of arrays while they are on the GPU, that of the context's limits as long as the context
//! is.

use super::{GpuMemory, State};
use crate::driver::PinnedArray;
use crate::worker::sync::lock;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use torpor_proto::error::CudaError;

/// Bytes of [`GpuMemory::zeroes`].
pub(crate) const ZERO_BYTES: u64 = 4 << 20;

/// How long the driver takes at most to take back what a worker had that has ended: 0.2 s on an H100.
const SUCCESSION: Duration = Duration::from_secs(1);

/// Between two tries meanwhile.
const SUCCESSION_NAP: Duration = Duration::from_millis(5);

/// A client's part of the GPU's memory that the driver has taken, or is about to; given up when dropped.
#[derive(Debug)]
pub(crate) struct TakenBytes {
    memory: Arc<GpuMemory>,
    client: u64,
    bytes: u64,
    /// What the client has of this kind.
    all_bytes: Rc<Cell<u64>>,
}

impl TakenBytes {
    /// Of what a client reserved.
    pub(crate) fn of_reserved(
        memory: &Arc<GpuMemory>,
        client: u64,
        bytes: u64,
        all_bytes: &Rc<Cell<u64>>,
    ) -> Self {
        all_bytes.set(all_bytes.get() + bytes);
        Self { memory: memory.clone(), client, bytes, all_bytes: all_bytes.clone() }
    }
}

impl Drop for TakenBytes {
    fn drop(&mut self) {
        self.all_bytes.set(self.all_bytes.get() - self.bytes);
        let mut state = lock(&self.memory.state);
        state.subtract(self.client, self.bytes);
        state.wake_waiting();
    }
}

impl GpuMemory {
    /// So much of what a client has does not leave the GPU before the client does.
    pub(crate) fn set_kept(&self, client: u64, bytes: u64) {
        if let Some(client) = lock(&self.state).clients.get_mut(&client) {
            client.kept_bytes = bytes;
        }
    }

    /// What a client reserved is the context's from now on, and nobody's again.
    pub(crate) fn give_to_context(&self, client: u64, bytes: u64) {
        let mut state = lock(&self.state);
        state.context_bytes += bytes;
        if let Some(client) = state.clients.get_mut(&client) {
            client.bytes -= bytes;
        }
    }

    /// Has the driver take memory that was reserved, for which pieces that are kept for the next one may have to go. Who is among the
    /// first here waits for what the GPU's worker before this one had, which may not be gone yet.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn make<T>(&self, make: impl Fn() -> Result<T, CudaError>) -> Result<T, CudaError> {
        if lock(&self.state).has_surplus() {
            self.release(State::take_surplus);
        }
        match make() {
            Err(CudaError::OUT_OF_MEMORY) => {
                self.trim();
                loop {
                    match make() {
                        Err(CudaError::OUT_OF_MEMORY) if self.is_new() => std::thread::sleep(SUCCESSION_NAP),
                        made => break made,
                    }
                }
            }
            made => made,
        }
    }

    /// Whether the first client came so lately that another worker's end may be under way.
    fn is_new(&self) -> bool {
        self.first_client.get().is_some_and(|since| since.elapsed() < SUCCESSION)
    }

    /// Page-locked zeroes that the GPU reads at this address: what has no address is cleared by copies.
    ///
    /// # Errors
    /// The driver's, the first time.
    pub(crate) fn zeroes(&self) -> Result<u64, CudaError> {
        let mut zeroes = lock(&self.zeroes);
        let array = match zeroes.take() {
            Some(array) => array,
            None => PinnedArray::new(&self.device, (ZERO_BYTES / 8) as usize)?,
        };
        Ok(zeroes.insert(array).device_address(0))
    }
}
