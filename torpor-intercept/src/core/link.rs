//! Linking (`cuLink…`): what comes out of one input is that input, which a GPU's driver compiles when it is loaded.
//!
//! Several inputs would have to be linked by the driver of a GPU; that is not offered.

use super::CudaResult;
use super::handle::Table;
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};
use torpor_proto::error::CudaError;

/// A linker invocation. Serves as `CUlinkState`.
pub struct Link {
    number: u32,
    /// With a NUL behind it, in case it is PTX.
    input: Mutex<Option<Box<[u8]>>>,
}

static LINKS: Table<Link> = Table::new(4096);

impl Link {
    /// `cuLinkCreate`.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY` with thousands of them.
    pub fn create() -> CudaResult<&'static Self> {
        let make = |number| Self { number, input: Mutex::default() };
        LINKS.insert(make, |link| *link.lock() = None).ok_or(CudaError::OUT_OF_MEMORY)
    }

    /// The invocation behind a handle.
    ///
    /// # Errors
    /// `INVALID_HANDLE`.
    pub fn find(handle: *mut c_void) -> CudaResult<&'static Self> {
        LINKS.get(handle).ok_or(CudaError::INVALID_HANDLE)
    }

    /// What the program is given for it.
    #[must_use]
    pub fn handle(&'static self) -> *mut c_void {
        Table::handle(self)
    }

    /// `cuLinkAddData`, of bytes with a NUL behind them.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` for a second input.
    pub fn add(&self, bytes: Vec<u8>) -> CudaResult<()> {
        let mut input = self.lock();
        if input.is_some() {
            return Err(CudaError::NOT_SUPPORTED);
        }
        *input = Some(bytes.into_boxed_slice());
        Ok(())
    }

    /// `cuLinkComplete`: address and length of the result, which stays until the invocation is destroyed.
    ///
    /// # Errors
    /// `INVALID_VALUE` without an input.
    pub fn complete(&self) -> CudaResult<(*const u8, usize)> {
        let input = self.lock();
        let bytes = input.as_ref().ok_or(CudaError::INVALID_VALUE)?;
        Ok((bytes.as_ptr(), bytes.len()))
    }

    /// `cuLinkDestroy`.
    pub fn destroy(&self) {
        *self.lock() = None;
        LINKS.retire(self.number);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<[u8]>>> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
