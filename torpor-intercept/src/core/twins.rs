//! Code on several devices: an image that is used on another device than the one it was loaded for is loaded once more for that, as a
//! *twin*, so that each device has variables of its own. The worker knows the bytes by their hash, so nothing is sent again.
//!
//! Programs name the first image and its kernels alone; a launch into a stream of another device finds the twin's. With one device
//! nobody looks.

use super::image::{IMAGES, Image};
use super::kernel::{Kernel, MAX_DYNAMIC_SHARED_BYTES};
use super::{CudaResult, client, devices};
use std::sync::{Mutex, MutexGuard, PoisonError};
use torpor_proto::command::{ImageLoad, KERNEL_ATTRIBUTES};
use torpor_proto::error::CudaError;

/// Twins of something, with the ordinals of their devices.
pub(super) type Twins<T> = Vec<(u32, &'static T)>;

/// Of kernels, to be found by launches.
#[derive(Default)]
pub(super) struct KernelTwins(Mutex<Twins<Kernel>>);

impl KernelTwins {
    fn lock(&self) -> MutexGuard<'_, Twins<Kernel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Image {
    /// What a device has of it.
    ///
    /// # Errors
    /// What loading gives.
    pub(super) fn on(&'static self, device: u32) -> CudaResult<&'static Self> {
        let client = client()?;
        self.ensure_loaded(client)?;
        let mut contents = self.lock();
        if contents.device == device || contents.is_one_for_all {
            return Ok(self);
        }
        if let Some((_, twin)) = contents.twins.iter().find(|(of, _)| *of == device) {
            return Ok(twin);
        }
        let (hash, bytes) = contents.identity.ok_or(CudaError::INVALID_HANDLE)?;
        let twin = IMAGES
            .insert(
                |number| Self::loaded(number, device, (hash, bytes)),
                |image| image.renew(device, (hash, bytes)),
            )
            .ok_or(CudaError::OUT_OF_MEMORY)?;
        let known = client.call(&ImageLoad { image: twin.number, reserved: 0, bytes, hash }, &[]);
        let known = known.and_then(|answer| match answer.reply.known {
            0 => Err(CudaError::INVALID_IMAGE),
            _ => Ok(()),
        });
        if let Err(error) = known {
            IMAGES.retire(twin.number);
            return Err(error);
        }
        contents.twins.push((device, twin));
        Ok(twin)
    }

    /// What the calling thread's current device has of it.
    ///
    /// # Errors
    /// What loading gives.
    pub fn here(&'static self) -> CudaResult<&'static Self> {
        if devices::are_several() { self.on(devices::current()) } else { Ok(self) }
    }

    /// All devices have it together, for its managed variables are one.
    pub fn keep_one(&self) {
        self.lock().is_one_for_all = true;
    }
}

impl Kernel {
    /// What a device has of it.
    ///
    /// # Errors
    /// What loading its image gives.
    #[cold]
    pub(super) fn on(&'static self, device: u32) -> CudaResult<&'static Self> {
        if let Some((_, twin)) = self.twins.lock().iter().find(|(of, _)| *of == device) {
            return Ok(twin);
        }
        let twin = self.image().on(device)?.kernel(self.name.clone())?;
        if !std::ptr::eq(twin, self) {
            for attribute in MAX_DYNAMIC_SHARED_BYTES..KERNEL_ATTRIBUTES as u32 {
                let value = self.attribute(attribute)?;
                if twin.attribute(attribute)? != value {
                    twin.set_attribute(attribute, value)?;
                }
            }
        }
        // Two threads may have come here at once, with the same twin.
        self.twins.lock().push((device, twin));
        Ok(twin)
    }

    /// Those that it has by now.
    pub(super) fn twins(&self) -> Twins<Self> {
        if !devices::are_several() {
            return Vec::new();
        }
        self.twins.lock().iter().filter(|(_, twin)| !std::ptr::eq(*twin, self)).copied().collect()
    }
}
