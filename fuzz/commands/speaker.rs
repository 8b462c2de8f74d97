//! How a program's steps become a client's commands.

use crate::arrays;
use crate::client::Client;
use crate::program::{Address, GROUND_BYTES, Level, PTX, Step, Strided, Tensor};
use crate::records::{self, launch_attributes, launch_shape};
use crate::worker::HOST_BYTES;
use torpor_proto::command::*;
use torpor_proto::error::CudaError;
use torpor_proto::ring::{NO_SLOT, encode_record};

const MIB: u64 = 1 << 20;

/// Posts a client's steps.
pub struct Speaker<'a> {
    client: &'a mut Client,
    neighbour: u64,
    bystander: u64,
    handles: &'a mut Vec<u64>,
}

impl<'a> Speaker<'a> {
    /// Speaks for `client`, which knows where the others' memory is, and the handles of all clients' objects.
    pub fn new(client: &'a mut Client, neighbour: u64, bystander: u64, handles: &'a mut Vec<u64>) -> Self {
        Self { client, neighbour, bystander, handles }
    }

    fn address(&self, address: Address) -> u64 {
        let place = |place: u8| self.client.arena.address + GROUND_BYTES + u64::from(place % 8) * 16 * MIB;
        match address {
            Address::Ground(offset) => self.client.arena.address + u64::from(offset) % GROUND_BYTES,
            Address::Segment(at, offset) => place(at) + u64::from(offset),
            Address::EndOfSegment(at, before) => place(at) + 2 * MIB - u64::from(before),
            Address::Host(offset) => self.client.host.address + u64::from(offset) % HOST_BYTES,
            Address::Neighbour(offset) => self.neighbour + u64::from(offset),
            Address::Bystander(offset) => self.bystander + u64::from(offset),
            Address::Wild(address) => address,
        }
    }

    /// Posts. A client that was dropped posts nothing.
    fn post<C: Command>(&mut self, command: C, tail: &[u8]) -> Result<(), CudaError> {
        if self.client.channel.sticky_error().is_none() {
            self.client.push(C::OPCODE, NO_SLOT, command.words(), tail);
        }
        Ok(())
    }

    /// Asks and waits. A client that was dropped is answered, too.
    fn ask<C: Command>(&mut self, command: C, tail: &[u8]) -> Result<(), CudaError> {
        match self.client.channel.sticky_error() {
            Some(error) => Err(error),
            None => self.client.ask_all(command, tail).map(|_| ()),
        }
    }

    /// Asks for a texture or surface object, and remembers its handle.
    fn make<C: Command<Reply = HandleReply>>(&mut self, command: C) -> Result<(), CudaError> {
        match self.client.channel.sticky_error() {
            Some(error) => Err(error),
            None => {
                let handle = self.client.ask_all(command, &[])?.0.handle;
                self.handles.push(handle);
                Ok(())
            }
        }
    }

    /// One that was made for some client, or any number.
    fn handle(&self, made: u8, wild: Option<u64>) -> u64 {
        wild.unwrap_or_else(|| self.handles.get(usize::from(made)).copied().unwrap_or(0))
    }

    /// Posts a step. What comes of it is the worker's to say.
    pub fn speak(&mut self, step: &Step) {
        let _ = match *step {
            Step::Ping => self.ask(Ping {}, &[]),
            Step::MemoryInfo => self.ask(MemoryInfo {}, &[]),
            Step::StagingMark => {
                self.client.mark();
                Ok(())
            }
            Step::TextTake => self.ask(TextTake {}, &[]),
            Step::Home { device } => self.post(Home { device, reserved: 0 }, &[]),
            Step::LimitRaise { limit, value } => {
                self.ask(LimitRaise { value, limit: limit.into(), reserved: 0 }, &[])
            }
            Step::Allocate { place, mebibytes } => {
                let bytes = (1 + u64::from(mebibytes % 8)) * 2 * MIB;
                self.ask(MemoryAllocate { address: self.address(Address::Segment(place, 0)), bytes }, &[])
            }
            Step::AllocateAt { address, bytes } => {
                self.ask(MemoryAllocate { address: self.address(address), bytes }, &[])
            }
            Step::Free { address } => {
                let address = self.address(address);
                if address == self.client.arena.address {
                    Ok(())
                } else {
                    self.post(MemoryFree { address }, &[])
                }
            }
            Step::ObjectCreate { place, mebibytes } => {
                let bytes = (1 + u64::from(mebibytes % 8)) * 2 * MIB;
                self.ask(ObjectCreate { home: self.address(Address::Segment(place, 0)), bytes }, &[])
            }
            Step::ObjectRelease { place } => {
                self.post(ObjectRelease { home: self.address(Address::Segment(place, 0)) }, &[])
            }
            Step::ObjectMap { place, address } => {
                let home = self.address(Address::Segment(place, 0));
                self.ask(ObjectMap { home, address: self.address(address) }, &[])
            }
            Step::ObjectUnmap { address } => {
                let address = self.address(address);
                if address == self.client.arena.address {
                    Ok(())
                } else {
                    self.post(ObjectUnmap { address }, &[])
                }
            }
            Step::HostLock { page, pages } => {
                self.ask(HostLock { address: self.page(page), bytes: (u64::from(pages) % 1024) * 4096 }, &[])
            }
            Step::HostUnlock { page } => self.ask(HostUnlock { address: self.page(page) }, &[]),
            Step::Move(ref moved) => {
                let (opcode, words, tail) = records::moved(moved, |address| self.address(address));
                if self.client.channel.sticky_error().is_none() {
                    self.client.push(opcode, NO_SLOT, &words, &tail);
                }
                Ok(())
            }
            Step::CopyStrided(ref strided) => {
                let command = self.strided(strided);
                self.post(command, &[])
            }
            Step::StreamCreate { stream, flags, priority, context, ref part } => {
                let stream = stream.into();
                self.post(StreamCreate { stream, flags, priority, context: context.into() }, &levels(part))
            }
            Step::PartLook { ref part } => self.ask(PartLook {}, &levels(part)),
            Step::PartSplit { ref part, least, flags, groups } => {
                let [least, flags, groups] = [least.into(), flags.into(), groups.into()];
                self.ask(PartSplit { least, flags, groups, reserved: 0 }, &levels(part))
            }
            Step::StreamDestroy { stream } => {
                self.post(StreamDestroy { stream: stream.into(), reserved: 0 }, &[])
            }
            Step::StreamSynchronize { stream } => {
                self.ask(StreamSynchronize { stream: stream.into(), reserved: 0 }, &[])
            }
            Step::StreamQuery { stream } => self.ask(StreamQuery { stream: stream.into(), reserved: 0 }, &[]),
            Step::ContextSynchronize { context } => {
                self.ask(ContextSynchronize { context, reserved: 0 }, &[])
            }
            Step::EventCreate { event, flags } => self.post(EventCreate { event: event.into(), flags }, &[]),
            Step::EventDestroy { event } => self.post(EventDestroy { event: event.into(), reserved: 0 }, &[]),
            Step::EventQuery { event } => self.ask(EventQuery { event: event.into(), reserved: 0 }, &[]),
            Step::EventSynchronize { event } => {
                self.ask(EventSynchronize { event: event.into(), reserved: 0 }, &[])
            }
            Step::EventElapsed { start, end } => {
                self.ask(EventElapsed { start: start.into(), end: end.into() }, &[])
            }
            Step::ImageLoad { image } => {
                let (bytes, hash) = (PTX.len() as u64, crate::client::hash(PTX));
                self.ask(ImageLoad { image: image.into(), reserved: 0, bytes, hash }, &[])
            }
            Step::ImageUnload { image } => self.post(ImageUnload { image: image.into(), reserved: 0 }, &[]),
            Step::ImageGlobal { image, known } => {
                let name: &[u8] = if known { b"step" } else { b"\xff" };
                self.ask(ImageGlobal { image: image.into(), reserved: 0 }, name)
            }
            Step::ImageErrors { image, first } => self.ask(ImageErrors { image: image.into(), first }, &[]),
            Step::ImageKernels { image, first } => self.ask(ImageKernels { image: image.into(), first }, &[]),
            Step::Upload { ref bytes, offset, total_bytes } => {
                let source = self.client.write_host(0, &bytes[..bytes.len().min(4096)]);
                let bytes = bytes.len().min(4096) as u64;
                let hash = [total_bytes; 4];
                self.post(ImageUpload { hash, total_bytes, offset, source, bytes }, &[])
            }
            Step::KernelResolve { image, kernel, known } => {
                let name: &[u8] = if known { b"add_step" } else { b"sub_step" };
                self.ask(KernelResolve { image: image.into(), kernel: kernel.into() }, name)
            }
            Step::KernelSetAttribute { kernel, attribute, value } => {
                let (kernel, attribute) = (kernel.into(), attribute.into());
                self.post(KernelSetAttribute { kernel, attribute, value, reserved: 0 }, &[])
            }
            Step::OccupancyBlocks { kernel, block_threads, shared_bytes, flags } => self.ask(
                OccupancyBlocks { kernel: kernel.into(), block_threads, shared_bytes, flags, reserved: 0 },
                &[],
            ),
            Step::OccupancyShared { kernel, blocks, block_threads } => {
                self.ask(OccupancyShared { kernel: kernel.into(), blocks, block_threads, reserved: 0 }, &[])
            }
            Step::OccupancyClusters { kernel, size, ref attributes } => {
                let (count, tail) = launch_attributes(attributes);
                let shape = launch_shape(kernel.into(), 0, count, 0);
                match size {
                    true => self.ask(OccupancyClusterSize { shape }, &tail),
                    false => self.ask(OccupancyClusters { shape }, &tail),
                }
            }
            Step::TensorMap { im2col, ref tensor } => match im2col {
                true => self.ask(self.im2col(tensor), &[]),
                false => self.ask(self.tiled(tensor), &[]),
            },
            Step::GraphAppend { graph, ref records } => {
                let mut words = Vec::new();
                for record in records.iter().take(32) {
                    let (opcode, body, tail) = records::node(record, |address| self.address(address));
                    encode_record(&mut words, opcode, NO_SLOT, &body, &tail);
                }
                let tail: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                self.post(GraphAppend { graph: graph.into(), reserved: 0 }, &tail)
            }
            Step::GraphInstantiate { graph, flags } => {
                self.ask(GraphInstantiate { graph: graph.into(), reserved: 0, flags: flags.into() }, &[])
            }
            Step::GraphUpdate { graph } => self.post(GraphUpdate { graph: graph.into(), reserved: 0 }, &[]),
            Step::GraphLaunch { graph, stream } => {
                self.post(GraphLaunch { graph: graph.into(), stream: stream.into() }, &[])
            }
            Step::GraphDestroy { graph } => self.post(GraphDestroy { graph: graph.into(), reserved: 0 }, &[]),
            Step::ArrayCreate(ref shape) => self.ask(arrays::shape(shape), &[]),
            Step::ArrayDestroy { array } => self.post(ArrayDestroy { array: array.into(), reserved: 0 }, &[]),
            Step::ArrayCopy(ref boxes) => {
                let command = arrays::copy(boxes, |address| self.address(address));
                self.post(command, &[])
            }
            Step::TextureCreate(ref seen) => {
                let command = arrays::texture(seen, |address| self.address(address));
                self.make(command)
            }
            Step::TextureDestroy { made, wild } => {
                let handle = self.handle(made, wild);
                self.post(TextureDestroy { handle }, &[])
            }
            Step::SurfaceCreate { array, level } => {
                self.make(SurfaceCreate { array: array.into(), level: level.into() })
            }
            Step::SurfaceDestroy { made, wild } => {
                let handle = self.handle(made, wild);
                self.post(SurfaceDestroy { handle }, &[])
            }
        };
    }

    fn page(&self, page: u16) -> u64 {
        self.client.host.address + u64::from(page) * 4096
    }

    fn strided(&self, strided: &Strided) -> CopyStrided {
        CopyStrided {
            destination: self.address(strided.destination),
            destination_pitch: strided.pitches[0].into(),
            destination_height: strided.heights[0].into(),
            source: self.address(strided.source),
            source_pitch: strided.pitches[1].into(),
            source_height: strided.heights[1].into(),
            width_bytes: strided.width_bytes.into(),
            height: strided.height.into(),
            depth: strided.depth.into(),
            stream: strided.stream.into(),
            reserved: 0,
        }
    }

    fn tiled(&self, tensor: &Tensor) -> TensorMapTiled {
        let [data_type, rank, interleave, swizzle, l2_promotion, fill] = tensor.kinds.map(u32::from);
        TensorMapTiled {
            address: self.address(tensor.address),
            dimensions: tensor.dimensions.map(u64::from),
            strides: tensor.strides.map(u64::from),
            box_dimensions: tensor.boxes.map(u32::from),
            element_strides: [1; 5],
            data_type,
            rank,
            interleave,
            swizzle,
            l2_promotion,
            fill,
        }
    }

    fn im2col(&self, tensor: &Tensor) -> TensorMapIm2col {
        let [data_type, rank, interleave, swizzle, l2_promotion, fill] = tensor.kinds.map(u32::from);
        let [channels, pixels, ..] = tensor.boxes.map(u32::from);
        TensorMapIm2col {
            address: self.address(tensor.address),
            dimensions: tensor.dimensions.map(u64::from),
            strides: tensor.strides.map(u64::from),
            lower_corner: [0; 5],
            upper_corner: tensor.boxes.map(i32::from),
            element_strides: [1; 5],
            channels,
            pixels,
            data_type,
            rank,
            interleave,
            swizzle,
            l2_promotion,
            fill,
            reserved: 0,
        }
    }
}

/// A part of the GPU, of at most ten levels.
fn levels(part: &[Level]) -> Vec<u8> {
    let level = |&Level { least, flags, groups, taken }: &Level| {
        let [least, flags, groups] = [least, flags, groups].map(u32::from);
        PartLevel {
            least,
            flags,
            groups,
            reserved: 0,
            taken: [taken.into(), 0, 0, u64::from(taken & 1) << 63],
        }
    };
    part.iter().take(10).flat_map(|of| bytemuck::bytes_of(&level(of)).to_vec()).collect()
}
