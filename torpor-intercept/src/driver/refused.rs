//! Driver functions that Torpor does not have.

use std::sync::atomic::{AtomicBool, Ordering};
use torpor_proto::error::CudaError;

/// CUDA_ERROR_NOT_SUPPORTED (cuda.h).
pub(crate) const NOT_SUPPORTED: i32 = 801;

/// Refuses a call of `symbol` and names it in the log, the first time only; `named` remembers that per symbol.
pub(crate) fn refuse(symbol: &str, named: &AtomicBool) -> i32 {
    // Plain reading first: a program may call a refused function often, and from many threads.
    if !named.load(Ordering::Relaxed) && !named.swap(true, Ordering::Relaxed) {
        crate::log::write(&format!(
            "{symbol} is not supported and returns CUDA_ERROR_NOT_SUPPORTED; docs/coverage.md lists what is"
        ));
    }
    crate::told::tell_refusal(symbol, CudaError::NOT_SUPPORTED);
    NOT_SUPPORTED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusing_always_says_so_and_remembers_that_it_was_logged() {
        let named = AtomicBool::new(false);
        assert_eq!(refuse("cuExample", &named), 801);
        assert!(named.load(Ordering::Relaxed));
        assert_eq!(refuse("cuExample", &named), 801);
    }
}
