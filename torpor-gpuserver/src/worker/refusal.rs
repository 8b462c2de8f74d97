//! Refusals: errors of one driver call, which harm neither the context nor the other clients.
//!
//! What was wanted with the call does not happen, and whoever wanted it is told or tries again. All other errors are the
//! context's, and end the worker.

use crate::worker::session::{Session, WATCH_NAP};
use torpor_proto::error::CudaError;

impl Session {
    /// Whether an error is that of one call alone: not the context's, nor the end of the session.
    pub(super) fn is_refusal(&self, error: CudaError) -> bool {
        // A device that fell off the bus gives CUDA_ERROR_UNKNOWN, which is not sticky by its definition.
        if error.is_sticky() || matches!(error, CudaError::UNKNOWN | CudaError::DEINITIALIZED) {
            return false;
        }
        matches!(self.streams.neutral().query(), Ok(()) | Err(CudaError::NOT_READY))
    }

    /// `None` for a refusal of what is needed to save the client's memory, which people are told.
    ///
    /// # Errors
    /// All others.
    pub(super) fn unless_refused<T>(&self, result: Result<T, CudaError>) -> Result<Option<T>, CudaError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if self.is_refusal(error) => {
                let link = &self.link;
                tracing::error!(
                    client = link.client,
                    function = %link.function,
                    "its memory stays on the GPU: the driver refuses a call that is needed to save it, {error}"
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until the worker's own work for the client is done, without a fence, which may have been what was refused.
    ///
    /// # Errors
    /// The context's, or `CUDA_ERROR_DEINITIALIZED` if the session is to end.
    pub(super) fn wait_for_setup(&mut self) -> Result<(), CudaError> {
        loop {
            match self.streams.neutral().query() {
                Err(CudaError::NOT_READY) if self.is_interrupted() => return Err(CudaError::DEINITIALIZED),
                Err(CudaError::NOT_READY) => std::thread::sleep(WATCH_NAP),
                done => return done,
            }
        }
    }
}
