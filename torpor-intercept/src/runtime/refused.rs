//! Runtime functions that Torpor does not have.

use super::error;
use crate::driver::Code;
use std::sync::atomic::{AtomicBool, Ordering};
use torpor_proto::error::CudaError;

/// Refuses a call of `symbol` and names it in the log, the first time only; `named` remembers that per symbol.
pub(super) fn refuse(symbol: &str, named: &AtomicBool) -> Code {
    if !named.load(Ordering::Relaxed) && !named.swap(true, Ordering::Relaxed) {
        crate::log::write(&format!("{symbol} is not supported and returns cudaErrorNotSupported"));
    }
    crate::told::tell_refusal(symbol, CudaError::NOT_SUPPORTED);
    error::remember(CudaError::NOT_SUPPORTED)
}

/// In place of a function that the program's own libcudart, which has been chosen, does not have.
pub(super) extern "C" fn absent() -> Code {
    CudaError::NOT_SUPPORTED.0 as Code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusing_is_an_error_to_be_asked_for_later() {
        let named = AtomicBool::new(false);
        assert_eq!(refuse("cudaExample", &named), 801);
        assert!(named.load(Ordering::Relaxed));
        assert_eq!(error::take_last(), 801);
        assert_eq!(error::take_last(), 0);
    }
}
