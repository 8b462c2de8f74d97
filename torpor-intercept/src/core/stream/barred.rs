//! Legacy default streams while a blocking stream of their context is captured: what is asked of one would make it wait for the
//! captured work, or that for it, so it is refused, and spoils the capture.
//!
//! To be asked whether it is captured spoils nothing. Source: cuStreamIsCapturing and cuStreamBeginCapture in CUDA's reference,
//! "Prohibited and Unhandled Operations" in the programming guide.

use super::{Capture, Stream};
use crate::core::CudaResult;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use torpor_proto::error::CudaError;

/// The captures that blocking streams are part of.
#[derive(Default)]
pub(super) struct Bars(Mutex<Vec<Arc<Capture>>>);

impl Bars {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Capture>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// This stream has become part of a capture.
    pub(super) fn bar_legacy(&self, capture: &Arc<Capture>) {
        if self.lane().is_blocking() {
            let legacy = Self::legacy_of(self.place());
            let mut bars = legacy.bars.lock();
            bars.push(capture.clone());
            legacy.is_capturing.store(true, Ordering::Relaxed);
        }
    }

    /// It is no part of the capture any more.
    pub(super) fn unbar_legacy(&self, capture: &Arc<Capture>) {
        if self.lane().is_blocking() {
            let legacy = Self::legacy_of(self.place());
            let mut bars = legacy.bars.lock();
            if let Some(place) = bars.iter().position(|bar| Arc::ptr_eq(bar, capture)) {
                bars.swap_remove(place);
            }
            legacy.is_capturing.store(!bars.is_empty(), Ordering::Relaxed);
        }
    }

    /// Whether it is a legacy stream that nothing may be asked of now.
    #[must_use]
    pub fn is_barred(&self) -> bool {
        self.is_capturing() && self.is_legacy()
    }

    /// # Errors
    /// `STREAM_CAPTURE_IMPLICIT` if it is barred, and what bars it is spoilt.
    pub(super) fn refuse_barred(&self) -> CudaResult<()> {
        if !self.is_barred() {
            return Ok(());
        }
        self.bars.lock().iter().for_each(|capture| capture.invalidate());
        Err(CudaError::STREAM_CAPTURE_IMPLICIT)
    }
}
