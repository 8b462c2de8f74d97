//! Loading images into the driver, and unloading them.
//!
//! To unload one waits for the kernels of all clients, so it is done [aside](crate::worker::gpu::aside): by whoever drops its last
//! instance only where more than may be loaded waits for that already.

use crate::compiler::{Compiler, Plain};
use crate::driver::{CodeLibrary, Device};
use crate::worker::gpu::aside::Aside;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use torpor_proto::error::CudaError;
use torpor_proto::image::Refusal;

/// As what each counts that waits, at least: of a small image the driver keeps more than its bytes.
const LEAST_BYTES: u64 = 1 << 20;

/// How images are loaded.
#[derive(Debug)]
pub(crate) struct Loader {
    /// Onto which GPU.
    device: Arc<Device>,
    compiler: Compiler,
    aside: Arc<Aside>,
    /// What may wait for being unloaded.
    limit_bytes: u64,
    /// What does.
    waiting_bytes: Arc<AtomicU64>,
}

/// A loaded image that nobody uses any more. Fields are dropped in this order.
struct Unused {
    _library: CodeLibrary,
    _counted: Counted,
}

/// Counts as waiting until it is dropped.
struct Counted(u64, Arc<AtomicU64>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0, Ordering::Relaxed);
    }
}

impl Loader {
    /// Of images for a GPU, of which as much may wait for being unloaded.
    pub(crate) fn new(
        device: &Arc<Device>,
        compiler: Compiler,
        aside: &Arc<Aside>,
        limit_bytes: u64,
    ) -> Arc<Self> {
        let (device, aside, waiting_bytes) = (device.clone(), aside.clone(), Arc::default());
        Arc::new(Self { device, compiler, aside, limit_bytes, waiting_bytes })
    }

    /// What is in a container for this GPU.
    pub(super) fn unpack(&self, container: &[u8]) -> Result<Plain, CudaError> {
        self.compiler.unpack(container, self.device.sm()?)
    }

    /// A cubin for this GPU of PTX text with its NUL.
    pub(super) fn compile(&self, text: &[u8]) -> Result<Vec<u8>, Refusal> {
        self.compiler.compile(text, self.device.sm()?)
    }

    /// A cubin for this GPU of a bundle's inputs.
    pub(super) fn link(&self, bundle: &[u8]) -> Result<Vec<u8>, Refusal> {
        self.compiler.link(bundle, self.device.sm()?)
    }

    /// # Safety
    /// As [`CodeLibrary::load`].
    pub(super) unsafe fn load(&self, image: &[u8]) -> Result<CodeLibrary, CudaError> {
        // SAFETY: the caller's promise.
        unsafe { CodeLibrary::load(&self.device, image) }
    }

    /// Nobody uses it any more, nor does anything on the GPU. `bytes`: its length.
    pub(super) fn unload(&self, library: CodeLibrary, bytes: u64) {
        let bytes = bytes.max(LEAST_BYTES);
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let counted = Counted(bytes, self.waiting_bytes.clone());
        let unused = Unused { _library: library, _counted: counted };
        if before.saturating_add(bytes) <= self.limit_bytes {
            self.aside.give_back(unused);
        }
    }
}
