//! A client's code: the images that it knows, variables of its own, and kernels.

use crate::worker::gpu::images::{ImageHash, Instance, LoadedKernel};
use crate::worker::objects::image::ClientImage;
use crate::worker::objects::kernel::{ClientKernel, Variables};
use crate::worker::objects::kernel_settings::KernelSettings;
use crate::worker::objects::variables::Own;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use torpor_proto::error::CudaError;

impl Session {
    /// Gives an image a number. False if the node does not have it. `limit_bytes`: what its function may use. It may have that
    /// number already, where commands are done again: the node did not have it the first time.
    pub(crate) fn know_image(
        &mut self,
        id: u32,
        (hash, bytes): (ImageHash, u64),
        limit_bytes: u64,
    ) -> Result<bool, CudaError> {
        if self.images.table.get(id).is_ok_and(|known| known.image.is(hash, bytes)) {
            return Ok(true);
        }
        self.images.table.check_free(id)?;
        let begun = self.shared.images.quota.begin(&self.link.function, limit_bytes, (hash, bytes));
        let _use = begun.map_err(|refusal| {
            if let Some(untold) = self.residency.refusals.tell(Instant::now()) {
                tracing::warn!(client = self.link.client, untold, "{refusal}");
            }
            CudaError::OUT_OF_MEMORY
        })?;
        let Some(image) = self.shared.images.find(hash, bytes) else { return Ok(false) };
        self.images.table.insert(id, Box::new(ClientImage { image, own: Own::Nothing, _use }))?;
        Ok(true)
    }

    /// Gives the client variables of its own, and its kernels the code for them.
    pub(crate) fn give_variables(&mut self, id: u32, wanted: Option<&str>) -> Result<(), Halt> {
        let image = self.images.table.get(id)?.image.clone();
        let own = self.own_variables(&image, wanted)?;
        let silence = if self.kernels.has_of(id) { self.wait_for_silence()? } else { None };
        self.kernels.switch_image(id, &own)?;
        drop(silence);
        self.images.table.get_mut(id)?.own = own;
        self.tell_fixed_images();
        Ok(())
    }

    /// Tells people how many images keep the client on its GPU.
    pub(crate) fn tell_fixed_images(&self) {
        self.link.usage.fixed_images.store(self.images.fixed() as u32, Ordering::Relaxed);
    }

    /// The client is about to take a kernel: if that may write into variables, they must be its own.
    pub(crate) fn separate_state(&mut self, id: u32) -> Result<(), Halt> {
        let known = self.images.table.get(id)?;
        if matches!(known.own, Own::Nothing)
            && self.shared.images.has_state(&known.image, &self.shared.loader)?
        {
            self.give_variables(id, None)?;
        }
        Ok(())
    }

    /// The instance of an image that this client's kernels are taken from, loaded now if it is not yet.
    pub(crate) fn image_instance(&self, image: u32) -> Result<Arc<Instance>, CudaError> {
        let image = self.images.table.get(image)?;
        match image.own.instance() {
            Some(instance) => Ok(instance.clone()),
            None => self.shared.images.shared(&image.image, &self.shared.loader),
        }
    }

    /// Whether nobody has used a kernel of an image yet: the driver, which is asked for it then, waits for every kernel that runs.
    pub(crate) fn is_new_kernel(&self, image: u32, name: &str) -> Result<bool, CudaError> {
        Ok(!self.image_instance(image)?.knows(name))
    }

    /// Gives a kernel of an image a number.
    pub(crate) fn take_kernel(
        &mut self,
        image: u32,
        id: u32,
        name: &str,
    ) -> Result<Arc<LoadedKernel>, CudaError> {
        self.kernels.table.check_free(id)?;
        let instance = self.image_instance(image)?;
        let loaded = instance.kernel(name)?;
        if let Some(assertions) = &instance.speech.assertions {
            self.link.note_assertions(assertions);
        }
        let kernel = ClientKernel {
            image,
            name: name.to_owned(),
            variables: Variables::of(self.images.own(image)?),
            loaded: loaded.clone(),
            instance,
            settings: KernelSettings::new(&loaded.attributes),
        };
        self.kernels.table.insert(id, Box::new(kernel))?;
        Ok(loaded)
    }
}
