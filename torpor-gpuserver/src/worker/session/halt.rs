//! What stops a session in the middle of something, and whose fault that is. CUDA's codes are chosen where a client is
//! answered.

use crate::worker::session::pause::WATCH_NAP;
use crate::worker::session::{Session, Stop};
use std::time::Instant;
use torpor_proto::error::CudaError;

/// Why something is not done that a session began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// The session is to end, or has become data: no fault, and the loop of the session sees it by itself.
    Interrupted,
    /// Whoever wanted it does not any more.
    Unwanted,
    /// A command needs something first, and is executed again then; it has done nothing.
    Parked,
    /// One call is refused, which harms neither the context nor other clients: whoever wanted it is told, or tries again.
    Refused(CudaError),
    /// The context is lost, and the worker ends.
    Lost(CudaError),
}

impl From<CudaError> for Halt {
    /// Of the driver's error, or of what a client asked for and cannot have.
    fn from(error: CudaError) -> Self {
        // A device that fell off the bus gives CUDA_ERROR_UNKNOWN, which is not sticky by its definition.
        if error.is_sticky() || error == CudaError::UNKNOWN {
            Self::Lost(error)
        } else {
            Self::Refused(error)
        }
    }
}

impl From<Halt> for CudaError {
    /// What the client is answered.
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Interrupted => Self::DEINITIALIZED,
            // No client hears it.
            Halt::Unwanted | Halt::Parked => Self::NOT_READY,
            Halt::Refused(error) | Halt::Lost(error) => error,
        }
    }
}

impl Session {
    /// Whether it is one call's fault alone: the driver is asked, since a context that is lost may be noticed by any code.
    pub(crate) fn is_refusal(&self, halt: Halt) -> bool {
        match halt {
            Halt::Interrupted | Halt::Parked | Halt::Lost(_) => false,
            Halt::Unwanted | Halt::Refused(_) => {
                matches!(self.streams.neutral().query(), Ok(()) | Err(CudaError::NOT_READY))
            }
        }
    }

    /// Goes on after an interruption, which the loop sees by itself, and after a refusal: what was refused is tried again, or
    /// reported by the command that misses it.
    #[inline]
    pub(crate) fn go_on(&self, done: Result<(), Halt>, what: &str) -> Result<(), Stop> {
        match done {
            Ok(()) => Ok(()),
            Err(halt) => self.go_on_after(halt, what),
        }
    }

    #[cold]
    fn go_on_after(&self, halt: Halt, what: &str) -> Result<(), Stop> {
        if halt == Halt::Interrupted || self.is_refusal(halt) { Ok(()) } else { Err(self.lose(halt, what)) }
    }

    /// `None` for a refusal of what is needed to save the client's memory, which people are told.
    ///
    /// # Errors
    /// All others.
    pub(crate) fn unless_refused<T>(&mut self, result: Result<T, Halt>) -> Result<Option<T>, Halt> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(halt) if self.is_refusal(halt) => {
                if let Some(untold) = self.residency.unsaved.tell(Instant::now()) {
                    let (link, error) = (&self.link, CudaError::from(halt));
                    tracing::error!(
                        client = link.client,
                        function = %link.function,
                        untold,
                        "its memory stays on the GPU: the driver refuses a call that is needed to save it, {error}"
                    );
                }
                Ok(None)
            }
            Err(halt) => Err(halt),
        }
    }

    /// Waits until the worker's own work for the client is done, without a fence, which may have been what was refused.
    ///
    /// # Errors
    /// [`Halt::Lost`], or [`Halt::Interrupted`].
    pub(crate) fn wait_for_setup(&mut self) -> Result<(), Halt> {
        loop {
            match self.streams.neutral().query() {
                Err(CudaError::NOT_READY) if self.is_interrupted() => return Err(Halt::Interrupted),
                Err(CudaError::NOT_READY) => std::thread::sleep(WATCH_NAP),
                done => return Ok(done?),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_whose_fault_it_is_and_keeps_its_code() {
        for error in [CudaError::ILLEGAL_ADDRESS, CudaError::LAUNCH_FAILED, CudaError::UNKNOWN] {
            assert_eq!(Halt::from(error), Halt::Lost(error));
            assert_eq!(CudaError::from(Halt::from(error)), error);
        }
        // The driver's own "deinitialised" is not the end of a session.
        for error in [CudaError::OUT_OF_MEMORY, CudaError::INVALID_VALUE, CudaError::DEINITIALIZED] {
            assert_eq!(Halt::from(error), Halt::Refused(error));
            assert_eq!(CudaError::from(Halt::from(error)), error);
        }
        assert_eq!(CudaError::from(Halt::Interrupted), CudaError::DEINITIALIZED);
    }
}
