//! A synchronous copy or fill of what another device owns comes behind all that this device was told before, and before all that it is told
//! next: cuda_runtime_api.h says that `cudaMemcpyPeer` is serialised with all pending and future work of the current device and of both ends.
//! Programs rely on the same where they read what another device has written without making it the current one. With one device nobody looks.

use super::copy::Location;
use super::stream::Stream;
use super::{Client, CudaResult, devices};

impl Client {
    /// Waits for the legacy streams of other devices than the stream's that own memory on either side, if the stream is a legacy stream.
    /// Whether there are such: what is posted next must be done before the program goes on.
    ///
    /// # Errors
    /// Those of earlier posted commands.
    pub(super) fn wait_for_owners(
        &'static self,
        stream: &'static Stream,
        sides: impl IntoIterator<Item = Location>,
    ) -> CudaResult<bool> {
        if !devices::are_several() || !stream.is_legacy() {
            return Ok(false);
        }
        let owner = |side| match side {
            Location::Device(address) => self.allocation_of(address).ok().map(|range| self.owner_of(range)),
            Location::Pinned(_) | Location::Pageable(_) => None,
        };
        let mut are_there = false;
        for device in sides.into_iter().filter_map(owner).filter(|&device| device != stream.device()) {
            Stream::legacy_of(device).synchronize()?;
            are_there = true;
        }
        Ok(are_there)
    }
}
