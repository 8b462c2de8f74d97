//! Kernels: what they are like, and launching them.

use crate::driver::LaunchConfig;
use crate::worker::objects::kernel::Kernels;
use crate::worker::session::Session;
use crate::worker::session::reach::{enter, group_of, group_of_launch};
use torpor_proto::command::{
    EVENT_LAUNCH_ATTRIBUTES, KernelCommands, KernelResolve, KernelResolveReply, KernelSetAttribute, Launch,
    LaunchAttribute, LaunchShape, OccupancyBlocks, OccupancyClusterSize, OccupancyClusters, OccupancyReply,
    OccupancyShared, Outcome, TensorMapIm2col, TensorMapReply, TensorMapTiled, Ticket,
};
use torpor_proto::error::CudaError;

/// Words of a launch attribute.
const ATTRIBUTE_WORDS: usize = size_of::<LaunchAttribute>() / 8;

impl KernelCommands for Session {
    fn kernel_resolve(
        &mut self,
        command: KernelResolve,
        tail: &[u8],
        _: Ticket,
    ) -> Result<Outcome<KernelResolveReply>, CudaError> {
        let name = str::from_utf8(tail).map_err(|_| CudaError::NOT_FOUND)?;
        self.kernels.table.check_free(command.kernel)?;
        self.separate_state(command.image)?;
        let _silence = match self.is_new_kernel(command.image, name)? {
            true => Some(self.silence()?),
            false => None,
        };
        let loaded = self.take_kernel(command.image, command.kernel, name)?;
        let reply = KernelResolveReply { attributes: loaded.attributes };
        Ok(Outcome::Done(reply, bytemuck::cast_slice(&loaded.parameters).to_vec()))
    }

    fn kernel_set_attribute(&mut self, command: KernelSetAttribute, _: &[u8]) -> Result<(), CudaError> {
        let KernelSetAttribute { kernel, attribute, value, .. } = command;
        self.kernels.set(kernel, attribute, value)
    }

    fn occupancy_blocks(
        &mut self,
        command: OccupancyBlocks,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<OccupancyReply>, CudaError> {
        let OccupancyBlocks { kernel, block_threads, shared_bytes, flags, .. } = command;
        let known = self.kernels.table.get(kernel)?;
        let kernel = known.loaded.kernel;
        let blocks =
            self.shared.device.occupancy_blocks(kernel, block_threads, shared_bytes as usize, flags)?;
        // The driver speaks of what any client may have.
        let may_launch = shared_bytes <= known.settings.dynamic_shared().unsigned_abs().into();
        Ok(Outcome::done(OccupancyReply { value: if may_launch { count(blocks)? } else { 0 } }))
    }

    fn occupancy_shared(
        &mut self,
        command: OccupancyShared,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<OccupancyReply>, CudaError> {
        let known = self.kernels.table.get(command.kernel)?;
        let kernel = known.loaded.kernel;
        let value = self.shared.device.occupancy_shared(kernel, command.blocks, command.block_threads)?;
        Ok(Outcome::done(OccupancyReply { value: value.min(known.settings.available_shared()) }))
    }

    fn occupancy_clusters(
        &mut self,
        command: OccupancyClusters,
        tail: &[u8],
        _: Ticket,
    ) -> Result<Outcome<OccupancyReply>, CudaError> {
        let attributes = prepare(self, &command.shape, tail)?;
        let kernel = self.kernels.get(command.shape.kernel)?;
        let config = config(&command.shape, &self.kernels.scratch[..attributes]);
        let clusters = self.streams.neutral().occupancy_clusters(kernel, &config)?;
        Ok(Outcome::done(OccupancyReply { value: count(clusters)? }))
    }

    fn occupancy_cluster_size(
        &mut self,
        command: OccupancyClusterSize,
        tail: &[u8],
        _: Ticket,
    ) -> Result<Outcome<OccupancyReply>, CudaError> {
        let attributes = prepare(self, &command.shape, tail)?;
        let kernel = self.kernels.get(command.shape.kernel)?;
        let config = config(&command.shape, &self.kernels.scratch[..attributes]);
        let size = count(self.streams.neutral().occupancy_cluster_size(kernel, &config)?)?;
        let most = self.kernels.table.get(command.shape.kernel)?.settings.most_cluster_blocks();
        Ok(Outcome::done(OccupancyReply { value: size.min(most) }))
    }

    fn launch(&mut self, command: Launch, tail: &[u8]) -> Result<(), CudaError> {
        let shape = &command.shape;
        self.activate()?;
        let attributes = prepare(self, shape, tail)?;
        let kernel = self.kernels.table.get(shape.kernel)?;
        let loaded = &kernel.loaded;
        if (shape.parameter_bytes as usize) < loaded.block_bytes
            || i64::from(shape.shared_bytes) > i64::from(kernel.settings.dynamic_shared())
        {
            return Err(CudaError::INVALID_VALUE);
        }
        let (variables, calls) = (kernel.variables, kernel.instance.speech.calls);
        let hides_pointers =
            variables.hide_pointers() || self.residency.packs_addresses || self.arrays.hide_pointers();
        let parameters = &self.kernels.scratch[attributes..];
        let group = match self.observes_reach() {
            true => group_of_launch(&self.space, &mut self.residency, parameters, hides_pointers)
                .max(group_of(&self.space, &mut self.residency, variables.block())),
            false => 0,
        };
        // Before anything is posted: it may have to be there as a whole.
        let group = self.bring_named(group)?;
        self.note_running_ahead(group);
        self.bring_up_to(group)?;
        self.may_say(calls)?;
        let kernel = self.kernels.table.get(shape.kernel)?;
        let loaded = &kernel.loaded;
        let parameters = &self.kernels.scratch[attributes..];
        let config = config(shape, &self.kernels.scratch[..attributes]);
        let is_recorded = self.streams.capture.is_some();
        self.streams.launch(shape.stream, &self.arrivals, |streams| {
            let stream = enter(streams, &self.arrivals, shape.stream, group)?;
            // SAFETY: the instance is loaded as long as the client's streams have work, and its graphs; the block is as long as the
            // kernel's; events in attributes are alive, see `prepare`.
            unsafe {
                if is_recorded && config.is_cooperative() {
                    stream.launch_with_each(loaded.kernel, &config, parameters, &loaded.parameters)
                } else {
                    stream.launch(loaded.kernel, &config, parameters, loaded.block_bytes)
                }
            }
        })?;
        self.has_said(calls, shape.stream)
    }

    fn tensor_map_tiled(
        &mut self,
        command: TensorMapTiled,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<TensorMapReply>, CudaError> {
        let words = self.shared.device.tensor_map_tiled(&command)?;
        self.residency.packs_addresses |= !words.contains(&command.address);
        Ok(Outcome::done(TensorMapReply { words }))
    }

    fn tensor_map_im2col(
        &mut self,
        command: TensorMapIm2col,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<TensorMapReply>, CudaError> {
        let words = self.shared.device.tensor_map_im2col(&command)?;
        self.residency.packs_addresses |= !words.contains(&command.address);
        Ok(Outcome::done(TensorMapReply { words }))
    }
}

/// Copies attributes and parameters to where the driver can read them, puts real events into attributes, and adds those
/// that the client's settings of the kernel stand for. Returns how many words the attributes have.
fn prepare(session: &mut Session, shape: &LaunchShape, tail: &[u8]) -> Result<usize, CudaError> {
    let attribute_bytes = u64::from(shape.attributes) * size_of::<LaunchAttribute>() as u64;
    if attribute_bytes + u64::from(shape.parameter_bytes) != tail.len() as u64 {
        return Err(CudaError::INVALID_VALUE);
    }
    let Kernels { table, scratch } = &mut session.kernels;
    let settings = &table.get(shape.kernel)?.settings;
    let (attributes, parameters) = tail.split_at(attribute_bytes as usize);
    let mut words = attributes.len() / 8;
    scratch.resize(words, 0);
    bytemuck::cast_slice_mut(scratch).copy_from_slice(attributes);
    for attribute in bytemuck::cast_slice_mut::<u64, LaunchAttribute>(scratch) {
        settings.check(attribute)?;
        if EVENT_LAUNCH_ATTRIBUTES.contains(&attribute.id) {
            let event = u32::try_from(attribute.value[0]).map_err(|_| CudaError::INVALID_HANDLE)?;
            if session.streams.capture.is_some() {
                // In a graph, what would wait for the event depends on the node instead.
                return Err(CudaError::NOT_SUPPORTED);
            }
            attribute.value[0] = session.events.get(event)?.to_record()?.as_attribute();
        }
    }
    for set in settings.launch_attributes() {
        let said = bytemuck::cast_slice::<u64, LaunchAttribute>(&scratch[..attributes.len() / 8]);
        if said.iter().all(|said| said.id != set.id) {
            settings.check(set)?;
            scratch.extend_from_slice(bytemuck::cast_slice(std::slice::from_ref(set)));
            words += ATTRIBUTE_WORDS;
        }
    }
    scratch.resize(words + parameters.len().div_ceil(8), 0);
    bytemuck::cast_slice_mut(&mut scratch[words..])[..parameters.len()].copy_from_slice(parameters);
    if let Some(capture) = &session.streams.capture {
        capture.put_conditions(&mut scratch[words..]);
    }
    Ok(words)
}

fn config<'a>(shape: &LaunchShape, attributes: &'a [u64]) -> LaunchConfig<'a> {
    LaunchConfig {
        grid: shape.grid,
        block: shape.block,
        shared_bytes: shape.shared_bytes,
        attributes: bytemuck::cast_slice(attributes),
    }
}

fn count(value: i32) -> Result<u64, CudaError> {
    u64::try_from(value).map_err(|_| CudaError::UNKNOWN)
}
