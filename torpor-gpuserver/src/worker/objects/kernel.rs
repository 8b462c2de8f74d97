//! The kernels of a client, by its numbers.

use crate::driver::Kernel;
use crate::worker::gpu::images::{Instance, LoadedKernel};
use crate::worker::objects::kernel_settings::KernelSettings;
use crate::worker::objects::table::Table;
use crate::worker::objects::variables::Own;
use std::sync::Arc;
use torpor_proto::control::migration;
use torpor_proto::error::CudaError;

/// Kernels of a client.
const LIMIT: u32 = 1 << 20;

/// A kernel, as a client knows it.
#[derive(Debug)]
pub(crate) struct ClientKernel {
    pub(crate) image: u32,
    pub(crate) name: String,
    pub(crate) loaded: Arc<LoadedKernel>,
    pub(crate) instance: Arc<Instance>,
    /// What this client set.
    pub(crate) settings: KernelSettings,
    pub(crate) variables: Variables,
}

/// Variables of the client's own that a kernel can reach, and so what these point to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Variables {
    None,
    /// In the block at this address.
    Placed(u64),
    /// As these, and managed ones, into which nobody looks.
    Managed(u64),
    /// Where the driver put them, which nobody looks into.
    Fixed,
}

impl Variables {
    pub(crate) fn of(own: &Own) -> Self {
        match own {
            Own::Nothing => Self::None,
            Own::Placed(placed) if placed.managed.is_some() => Self::Managed(placed.block.address),
            Own::Placed(placed) => Self::Placed(placed.block.address),
            Own::Fixed { .. } => Self::Fixed,
        }
    }

    /// The block's address, as a slice of one or none.
    pub(crate) fn block(&self) -> &[u64] {
        match self {
            Self::Placed(block) | Self::Managed(block) => std::slice::from_ref(block),
            Self::None | Self::Fixed => &[],
        }
    }

    /// Whether there may be pointers in them that are not known.
    pub(crate) fn hide_pointers(&self) -> bool {
        matches!(self, Self::Managed(_) | Self::Fixed)
    }
}

/// The kernels of a client.
#[derive(Debug)]
pub(crate) struct Kernels {
    pub(crate) table: Table<Box<ClientKernel>>,
    /// Attributes and parameters of the launch at hand, aligned; its memory is reused.
    pub(crate) scratch: Vec<u64>,
}

impl Kernels {
    pub(crate) fn new() -> Self {
        Self { table: Table::new(LIMIT), scratch: Vec::new() }
    }

    /// An image's number was taken back, and with it those of its kernels.
    pub(crate) fn forget_image(&mut self, image: u32) {
        self.table.remove_if(|kernel| kernel.image == image);
    }

    /// Whether there are any of an image.
    pub(crate) fn has_of(&self, image: u32) -> bool {
        self.table.iter().any(|(_, kernel)| kernel.image == image)
    }

    /// From now on the kernels of an image are those of the client's own instance, if it has one.
    pub(crate) fn switch_image(&mut self, image: u32, own: &Own) -> Result<(), CudaError> {
        let Some(instance) = own.instance() else { return Ok(()) };
        for kernel in self.table.values_mut().filter(|kernel| kernel.image == image) {
            kernel.loaded = instance.kernel(&kernel.name)?;
            kernel.instance = instance.clone();
            kernel.variables = Variables::of(own);
            for migration::KernelSetting { attribute, value } in kernel.settings.save() {
                instance.permit(&kernel.loaded, attribute, value)?;
            }
        }
        Ok(())
    }

    /// The client sets something of a kernel.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` if it cannot be, or the driver's.
    pub(crate) fn set(&mut self, kernel: u32, attribute: u32, value: i32) -> Result<(), CudaError> {
        let kernel = self.table.get_mut(kernel)?;
        let mut settings = kernel.settings.clone();
        settings.set(attribute, value)?;
        kernel.instance.permit(&kernel.loaded, attribute, value)?;
        kernel.settings = settings;
        Ok(())
    }

    /// What the driver launches.
    pub(crate) fn get(&self, kernel: u32) -> Result<Kernel, CudaError> {
        Ok(self.table.get(kernel)?.loaded.kernel)
    }
}
