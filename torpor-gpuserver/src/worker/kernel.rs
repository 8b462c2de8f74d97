//! Kernels: what they are like, and launching them.

use crate::driver::{Kernel, LaunchConfig};
use crate::worker::arrivals::EVERYTHING;
use crate::worker::image_store::{Instance, LoadedKernel, MAX_DYNAMIC_SHARED};
use crate::worker::reach::{enter, group_of};
use crate::worker::session::Session;
use crate::worker::table::Table;
use std::sync::Arc;
use torpor_proto::command::{
    EVENT_LAUNCH_ATTRIBUTES, KernelCommands, KernelResolve, KernelResolveReply, KernelSetAttribute, Launch,
    LaunchAttribute, LaunchShape, OccupancyBlocks, OccupancyClusterSize, OccupancyClusters, OccupancyReply,
    OccupancyShared, Outcome, TensorMapIm2col, TensorMapReply, TensorMapTiled, Ticket,
};
use torpor_proto::control::migration;
use torpor_proto::error::CudaError;

/// Kernels of a client.
const LIMIT: u32 = 1 << 20;

/// Dynamic shared memory that every launch may use without asking, in bytes. Source: CUDA C++ Programming Guide.
const FREE_DYNAMIC_SHARED: i32 = 48 * 1024;

/// `CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE`: would give out a handle of the driver's.
const DEVICE_UPDATABLE: u32 = 13;

/// Words of a launch attribute.
const ATTRIBUTE_WORDS: usize = size_of::<LaunchAttribute>() / 8;

#[derive(Debug)]
struct ClientKernel {
    image: u32,
    name: String,
    loaded: Arc<LoadedKernel>,
    instance: Arc<Instance>,
    /// What this client set, in order.
    settings: Vec<(u32, i32)>,
    /// The dynamic shared memory that this client's launches may use.
    dynamic_shared: i32,
    /// The client knows addresses of the image's globals, and may have put pointers there.
    has_globals: bool,
}

/// The kernels of a client.
#[derive(Debug)]
pub(super) struct Kernels {
    table: Table<Box<ClientKernel>>,
    /// Attributes and parameters of the launch at hand, aligned; its memory is reused.
    scratch: Vec<u64>,
}

impl Kernels {
    pub(super) fn new() -> Self {
        Self { table: Table::new(LIMIT), scratch: Vec::new() }
    }

    /// An image's number was taken back, and with it those of its kernels.
    pub(super) fn forget_image(&mut self, image: u32) {
        self.table.remove_if(|kernel| kernel.image == image);
    }

    /// From now on the kernels of an image are those of another instance.
    pub(super) fn switch_image(&mut self, image: u32, instance: &Arc<Instance>) -> Result<(), CudaError> {
        for kernel in self.table.values_mut().filter(|kernel| kernel.image == image) {
            kernel.loaded = instance.kernel(&kernel.name)?;
            kernel.instance = instance.clone();
            kernel.has_globals = true;
            for &(attribute, value) in &kernel.settings {
                instance.set_attribute(&kernel.loaded, attribute, value)?;
            }
        }
        Ok(())
    }

    /// What the client has, for another worker.
    pub(super) fn save(&self) -> Vec<migration::Kernel> {
        let setting = |&(attribute, value): &(u32, i32)| migration::KernelSetting { attribute, value };
        let kernels = self.table.iter().map(|(id, kernel)| migration::Kernel {
            id,
            image: kernel.image,
            name: kernel.name.clone(),
            settings: kernel.settings.iter().map(setting).collect(),
        });
        kernels.collect()
    }

    fn get(&self, kernel: u32) -> Result<Kernel, CudaError> {
        Ok(self.table.get(kernel)?.loaded.kernel)
    }
}

impl KernelCommands for Session {
    fn kernel_resolve(
        &mut self,
        command: KernelResolve,
        tail: &[u8],
        _: Ticket,
    ) -> Result<Outcome<KernelResolveReply>, CudaError> {
        let name = str::from_utf8(tail).map_err(|_| CudaError::NOT_FOUND)?;
        let loaded = self.resolve(command, name)?;
        let reply = KernelResolveReply { attributes: loaded.attributes };
        Ok(Outcome::Done(reply, bytemuck::cast_slice(&loaded.parameters).to_vec()))
    }

    fn kernel_set_attribute(&mut self, command: KernelSetAttribute, _: &[u8]) -> Result<(), CudaError> {
        let KernelSetAttribute { kernel, attribute, value, .. } = command;
        let kernel = self.kernels.table.get_mut(kernel)?;
        kernel.instance.set_attribute(&kernel.loaded, attribute, value)?;
        if attribute == MAX_DYNAMIC_SHARED {
            kernel.dynamic_shared = value.max(FREE_DYNAMIC_SHARED);
        }
        match kernel.settings.iter_mut().find(|setting| setting.0 == attribute) {
            Some(setting) => setting.1 = value,
            None => kernel.settings.push((attribute, value)),
        }
        Ok(())
    }

    fn occupancy_blocks(
        &mut self,
        command: OccupancyBlocks,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<OccupancyReply>, CudaError> {
        let OccupancyBlocks { kernel, block_threads, shared_bytes, flags, .. } = command;
        let kernel = self.kernels.get(kernel)?;
        let blocks =
            self.shared.device.occupancy_blocks(kernel, block_threads, shared_bytes as usize, flags)?;
        Ok(Outcome::done(OccupancyReply { value: count(blocks)? }))
    }

    fn occupancy_shared(
        &mut self,
        command: OccupancyShared,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<OccupancyReply>, CudaError> {
        let kernel = self.kernels.get(command.kernel)?;
        let value = self.shared.device.occupancy_shared(kernel, command.blocks, command.block_threads)?;
        Ok(Outcome::done(OccupancyReply { value }))
    }

    fn occupancy_clusters(
        &mut self,
        command: OccupancyClusters,
        tail: &[u8],
        _: Ticket,
    ) -> Result<Outcome<OccupancyReply>, CudaError> {
        self.prepare(&command.shape, tail)?;
        let kernel = self.kernels.get(command.shape.kernel)?;
        let config = config(&command.shape, &self.kernels.scratch);
        let clusters = self.streams.neutral().occupancy_clusters(kernel, &config)?;
        Ok(Outcome::done(OccupancyReply { value: count(clusters)? }))
    }

    fn occupancy_cluster_size(
        &mut self,
        command: OccupancyClusterSize,
        tail: &[u8],
        _: Ticket,
    ) -> Result<Outcome<OccupancyReply>, CudaError> {
        self.prepare(&command.shape, tail)?;
        let kernel = self.kernels.get(command.shape.kernel)?;
        let config = config(&command.shape, &self.kernels.scratch);
        let size = self.streams.neutral().occupancy_cluster_size(kernel, &config)?;
        Ok(Outcome::done(OccupancyReply { value: count(size)? }))
    }

    fn launch(&mut self, command: Launch, tail: &[u8]) -> Result<(), CudaError> {
        let shape = &command.shape;
        self.activate()?;
        self.prepare(shape, tail)?;
        let kernel = self.kernels.table.get(shape.kernel)?;
        let loaded = &kernel.loaded;
        if (shape.parameter_bytes as usize) < loaded.block_bytes
            || i64::from(shape.shared_bytes) > i64::from(kernel.dynamic_shared)
        {
            return Err(CudaError::INVALID_VALUE);
        }
        let hidden = kernel.has_globals
            || (self.residency.makes_tensor_maps && loaded.block_bytes >= size_of::<TensorMapReply>());
        let parameters = &self.kernels.scratch[shape.attributes as usize * ATTRIBUTE_WORDS..];
        let group = match self.observes_reach() {
            true if hidden => EVERYTHING,
            true => group_of(&self.space, &mut self.residency, parameters),
            false => 0,
        };
        self.bring_up_to(group)?;
        let kernel = self.kernels.table.get(shape.kernel)?;
        let loaded = &kernel.loaded;
        let parameters = &self.kernels.scratch[shape.attributes as usize * ATTRIBUTE_WORDS..];
        let config = config(shape, &self.kernels.scratch);
        let stream = enter(&mut self.streams, &self.arrivals, shape.stream, group)?;
        // SAFETY: the instance is loaded as long as the client's streams have work; the block is as long as the
        // kernel's; events in attributes are alive, see `prepare`.
        unsafe { stream.launch(loaded.kernel, &config, parameters, loaded.block_bytes) }
    }

    fn tensor_map_tiled(
        &mut self,
        command: TensorMapTiled,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<TensorMapReply>, CudaError> {
        let words = self.shared.device.tensor_map_tiled(&command)?;
        self.residency.makes_tensor_maps = true;
        Ok(Outcome::done(TensorMapReply { words }))
    }

    fn tensor_map_im2col(
        &mut self,
        command: TensorMapIm2col,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<TensorMapReply>, CudaError> {
        let words = self.shared.device.tensor_map_im2col(&command)?;
        self.residency.makes_tensor_maps = true;
        Ok(Outcome::done(TensorMapReply { words }))
    }
}

impl Session {
    fn resolve(&mut self, command: KernelResolve, name: &str) -> Result<Arc<LoadedKernel>, CudaError> {
        self.kernels.table.check_free(command.kernel)?;
        let instance = self.image_instance(command.image)?;
        let loaded = instance.kernel(name)?;
        let kernel = ClientKernel {
            image: command.image,
            name: name.to_owned(),
            dynamic_shared: loaded.attributes[MAX_DYNAMIC_SHARED as usize].max(FREE_DYNAMIC_SHARED),
            has_globals: self.images.is_private(command.image),
            loaded: loaded.clone(),
            instance,
            settings: Vec::new(),
        };
        self.kernels.table.insert(command.kernel, Box::new(kernel))?;
        Ok(loaded)
    }

    /// Makes the kernels that the client had at another worker; its images are there.
    pub(super) fn restore_kernels(&mut self, kernels: Vec<migration::Kernel>) -> Result<(), CudaError> {
        for migration::Kernel { id, image, name, settings } in kernels {
            self.resolve(KernelResolve { image, kernel: id }, &name)?;
            for migration::KernelSetting { attribute, value } in settings {
                self.kernel_set_attribute(
                    KernelSetAttribute { kernel: id, attribute, value, reserved: 0 },
                    &[],
                )?;
            }
        }
        Ok(())
    }

    /// Copies attributes and parameters to where the driver can read them, and puts real events into attributes.
    fn prepare(&mut self, shape: &LaunchShape, tail: &[u8]) -> Result<(), CudaError> {
        let attribute_bytes = u64::from(shape.attributes) * size_of::<LaunchAttribute>() as u64;
        if attribute_bytes + u64::from(shape.parameter_bytes) != tail.len() as u64 {
            return Err(CudaError::INVALID_VALUE);
        }
        let scratch = &mut self.kernels.scratch;
        scratch.resize(tail.len().div_ceil(8), 0);
        bytemuck::cast_slice_mut(scratch)[..tail.len()].copy_from_slice(tail);
        let attributes = &mut scratch[..shape.attributes as usize * ATTRIBUTE_WORDS];
        for attribute in bytemuck::cast_slice_mut::<u64, LaunchAttribute>(attributes) {
            if EVENT_LAUNCH_ATTRIBUTES.contains(&attribute.id) {
                let event = u32::try_from(attribute.value[0]).map_err(|_| CudaError::INVALID_HANDLE)?;
                attribute.value[0] = match &mut self.streams.capture {
                    Some(capture) => capture.record(event, &self.shared.device)?.as_attribute(),
                    None => {
                        let event = self.events.get(event)?;
                        event.note_record();
                        event.real.as_attribute()
                    }
                };
            } else if attribute.id == DEVICE_UPDATABLE {
                return Err(CudaError::NOT_SUPPORTED);
            }
        }
        Ok(())
    }
}

fn config<'a>(shape: &LaunchShape, scratch: &'a [u64]) -> LaunchConfig<'a> {
    LaunchConfig {
        grid: shape.grid,
        block: shape.block,
        shared_bytes: shape.shared_bytes,
        attributes: bytemuck::cast_slice(&scratch[..shape.attributes as usize * ATTRIBUTE_WORDS]),
    }
}

fn count(value: i32) -> Result<u64, CudaError> {
    u64::try_from(value).map_err(|_| CudaError::UNKNOWN)
}
