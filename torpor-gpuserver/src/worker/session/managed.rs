//! `__managed__` variables of a client's images: a block in the last part of its host range, page-locked as what the client
//! locks itself, so that the program and its kernels use the same bytes at the same addresses.

use crate::worker::session::Session;
use torpor_proto::error::CudaError;
use torpor_proto::image::relocate::{Bases, Relocatable};
use torpor_proto::layout::{AddressRange, PAGE_BYTES};

impl Session {
    /// Page-locks a block for managed variables; `None` for an image without such.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY`, also if the function may have no more page-locked memory.
    pub(crate) fn take_managed(&mut self, layout: &Relocatable) -> Result<Option<AddressRange>, CudaError> {
        let Some(bytes) = pages(layout) else { return Ok(None) };
        let (block, _) = self.managed_variables.take(bytes).ok_or(CudaError::OUT_OF_MEMORY)?;
        if let Err(error) = self.lock_host(block.address, bytes) {
            self.managed_variables.release(block.address);
            return Err(error);
        }
        Ok(Some(AddressRange { address: block.address, bytes }))
    }

    /// The block that an image had at another worker. What is in it comes with the host range, and is locked with what else was.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` if it cannot be there.
    pub(crate) fn restore_managed(
        &mut self,
        layout: &Relocatable,
        address: Option<u64>,
    ) -> Result<Option<AddressRange>, CudaError> {
        match (pages(layout), address) {
            (None, None) => Ok(None),
            (Some(bytes), Some(address)) if self.managed_variables.take_at(address, bytes) => {
                Ok(Some(AddressRange { address, bytes }))
            }
            _ => Err(CudaError::INVALID_VALUE),
        }
    }

    /// Gives managed variables their first values. Their block is new, and so zero.
    pub(crate) fn fill_managed(&mut self, layout: &Relocatable, bases: Bases) -> Result<(), CudaError> {
        let contents = layout.managed_contents(bases);
        contents.iter().try_for_each(|(address, bytes)| self.space.host.write(*address, bytes))
    }

    /// Gives a block back. The GPU must have done with it.
    pub(crate) fn release_managed(&mut self, block: Option<AddressRange>) -> Result<(), CudaError> {
        let Some(AddressRange { address, .. }) = block else { return Ok(()) };
        self.managed_variables.release(address);
        self.unlock_host(address)
    }
}

fn pages(layout: &Relocatable) -> Option<u64> {
    let bytes = layout.managed_bytes();
    (bytes > 0).then(|| bytes.next_multiple_of(PAGE_BYTES))
}
