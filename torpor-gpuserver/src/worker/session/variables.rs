//! Giving a client variables of its own, and keeping their two places equal (`objects::variables`).

use crate::driver::Place;
use crate::state_file::Void;
use crate::worker::gpu::images::{Image, Instance};
use crate::worker::objects::pending::{Kept, Pending};
use crate::worker::objects::variables::{Own, Placed};
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use std::sync::Arc;
use torpor_proto::error::CudaError;
use torpor_proto::image::relocate::{Bases, Immovable, Relocatable};
use torpor_proto::layout::AddressRange;

/// A block, the one of managed variables, and the code for them.
type PlacedCode = ((AddressRange, Option<AddressRange>), Option<Arc<Instance>>);

impl Session {
    /// Variables for an image that has none for this client yet. `wanted` is the one that it has asked for, if it has.
    ///
    /// # Errors
    /// `CUDA_ERROR_NOT_FOUND` if there is no such variable, `CUDA_ERROR_OUT_OF_MEMORY`, the driver's.
    pub(crate) fn own_variables(&mut self, image: &Arc<Image>, wanted: Option<&str>) -> Result<Own, Halt> {
        let mut is_managed = false;
        let obstacle = match self.layout_of(image)? {
            Err(obstacle) => obstacle,
            Ok(layout) => {
                if wanted.is_some_and(|name| layout.variable(name).is_none()) {
                    return Err(CudaError::NOT_FOUND.into());
                }
                is_managed = layout.managed_bytes() > 0;
                match layout.obstacle().filter(|_| layout.has_kernels()).cloned() {
                    Some(obstacle) => obstacle,
                    None => match self.place(image, &layout) {
                        Ok(Ok((blocks, instance))) => {
                            if blocks.1.is_some() {
                                // Its kernels reach memory that the program writes from now on.
                                self.uncover(Void::Managed);
                            }
                            return Ok(Own::Placed(Box::new(Placed::new(blocks, layout, instance))));
                        }
                        Ok(Err(obstacle)) => obstacle,
                        Err(halt) => {
                            if halt == Halt::Parked {
                                self.images.parked_layout = Some((image.clone(), layout));
                            }
                            return Err(halt);
                        }
                    },
                }
            }
        };
        if is_managed {
            if image.is_news() {
                tracing::warn!(
                    client = self.link.client,
                    function = %self.link.function,
                    image = %image.short_name(),
                    "an image has managed variables that cannot have addresses of the client's own, so its kernels are \
                     refused: {obstacle}"
                );
            }
            return Err(CudaError::NOT_SUPPORTED.into());
        }
        if let Some(name) = wanted {
            // An image without this variable need not be copied.
            image.shared(&self.shared.loader)?.global(name)?;
        }
        if image.is_news() {
            tracing::warn!(
                client = self.link.client,
                function = %self.link.function,
                image = %image.short_name(),
                variable = wanted.unwrap_or("(one that kernels write into)"),
                "the variables of an image cannot have addresses of the client's own, so clients that use them stay on this \
                 GPU: {obstacle}"
            );
        }
        let instance = image.load(&self.shared.loader)?;
        Ok(Own::Fixed { instance, told: Vec::new() })
    }

    /// What an image's variables are like. Finding out may have the driver compile, so a parked command leaves that for itself.
    fn layout_of(&mut self, image: &Arc<Image>) -> Result<Result<Relocatable, Immovable>, CudaError> {
        match self.images.parked_layout.take() {
            Some((parked, layout)) if Arc::ptr_eq(&parked, image) => Ok(Ok(layout)),
            _ => image.relocatable(&self.shared.loader),
        }
    }

    /// Makes a block with its first contents. The inner error is the driver's, of the code.
    fn place(
        &mut self,
        image: &Arc<Image>,
        layout: &Relocatable,
    ) -> Result<Result<PlacedCode, Immovable>, Halt> {
        self.activate()?;
        let (block, segment) = self.variables.take(block_bytes(layout)).ok_or(CudaError::OUT_OF_MEMORY)?;
        let managed = self.take_managed(layout).inspect_err(|_| {
            self.variables.release(block.address);
        })?;
        let bases = bases(block, managed);
        let instance = match self.load_relocated(image, layout, bases) {
            Ok(instance) => instance,
            Err(error) => {
                self.variables.release(block.address);
                self.release_managed(managed)?;
                return if error.is_sticky() {
                    Err(error.into())
                } else {
                    Ok(Err(Immovable::Refused(error.0)))
                };
            }
        };
        let filled = self.fill_block(block, segment, (layout, bases));
        if let Err(halt) = filled.and_then(|()| Ok(self.fill_managed(layout, bases)?)) {
            self.release_block(block.address)?;
            self.release_managed(managed)?;
            return Err(halt);
        }
        Ok(Ok(((block, managed), instance)))
    }

    fn load_relocated(
        &self,
        image: &Image,
        layout: &Relocatable,
        bases: Bases,
    ) -> Result<Option<Arc<Instance>>, CudaError> {
        if !layout.has_kernels() {
            return Ok(None);
        }
        image.load_relocated(&self.shared.loader, layout, bases).map(Some)
    }

    fn fill_block(
        &mut self,
        block: AddressRange,
        segment: AddressRange,
        (layout, bases): (&Relocatable, Bases),
    ) -> Result<(), Halt> {
        if self.space.is_segment(segment.address) {
            let group = self.group_of(&[segment.address]);
            self.bring_up_to(group)?;
        } else {
            self.space.check_any(segment.address, segment.bytes)?;
            self.activate_with(segment.bytes)?;
            self.make_segment(segment.address, segment.bytes)?;
        }
        // SAFETY: the block lies in a segment that is mapped and stays until the client's streams are idle.
        unsafe { self.streams.enter_setup().fill(block.address, (0, block.bytes as usize, 1), 0, 1)? };
        for (address, contents) in layout.contents(bases) {
            self.note_copied_into(address, contents.len() as u64);
            // SAFETY: as above; the bytes are kept until the copy is done.
            let posted = unsafe { self.streams.enter_setup().upload(address, &contents) };
            let fences = Vec::from_iter(self.streams.fence_setup()?);
            self.pending.push(Pending::Keep(Kept::Bytes(contents), fences));
            posted?;
        }
        let fence = self.streams.fence_setup()?;
        self.wait_for(Vec::from_iter(fence))
    }

    /// The variables that an image had at another worker; its block comes with the client's memory.
    pub(crate) fn restore_variables(
        &mut self,
        image: &Arc<Image>,
        address: u64,
        managed: Option<u64>,
    ) -> Result<Placed, CudaError> {
        let layout = image.relocatable(&self.shared.loader)?.map_err(|_| CudaError::INVALID_IMAGE)?;
        let block = AddressRange { address, bytes: block_bytes(&layout) };
        if !self.variables.take_at(address, block.bytes) {
            return Err(CudaError::INVALID_VALUE);
        }
        let managed = self.restore_managed(&layout, managed)?;
        let instance = self.load_relocated(image, &layout, bases(block, managed))?;
        let mut placed = Placed::new((block, managed), layout, instance);
        placed.is_bank_stale = !placed.constants.is_empty();
        self.images.has_stale_banks |= placed.is_bank_stale;
        Ok(placed)
    }

    /// Gives a block back, with its segment if that is empty then.
    pub(crate) fn release_block(&mut self, address: u64) -> Result<(), Halt> {
        match self.variables.release(address) {
            Some(segment) if self.space.is_segment(segment.address) => self.free_segment(segment.address),
            _ => Ok(()),
        }
    }

    /// The client writes there, in the order of a stream: constants follow into their banks.
    pub(crate) fn follow_into_banks(&mut self, stream: u32, address: u64, bytes: u64) -> Result<(), Halt> {
        if !self.space.arena().for_variables().contains(address, 0) {
            return Ok(());
        }
        let placed = self.images.placed_mut();
        let copies: Vec<_> = placed.flat_map(|placed| placed.copies_into_bank(address, bytes)).collect();
        for (to, from, bytes) in copies {
            let stream = self.streams.enter(stream)?;
            // SAFETY: the bank is the instance's, the block's segment is mapped, and both stay until the client's streams
            // are idle.
            unsafe { stream.copy((Place::Device, to), (Place::Device, from), bytes)? };
        }
        Ok(())
    }

    /// Fills the banks of instances that were loaded for a block from another worker. Its memory is being brought.
    pub(crate) fn renew_banks(&mut self) -> Result<(), Halt> {
        if !self.images.has_stale_banks {
            return Ok(());
        }
        let stale = |placed: &&mut Placed| placed.is_bank_stale;
        let whole = |placed: &mut Placed| {
            let copies = placed.copies_into_bank(placed.block.address, placed.block.bytes);
            (placed.block.address, copies.collect::<Vec<_>>())
        };
        let blocks: Vec<_> = self.images.placed_mut().filter(stale).map(whole).collect();
        for (address, copies) in blocks {
            let group = self.group_of(&[address]);
            self.bring_up_to(group)?;
            for (to, from, bytes) in copies {
                // SAFETY: as in `follow_into_banks`; the block's contents come in the same stream.
                unsafe {
                    self.streams.enter_setup().copy((Place::Device, to), (Place::Device, from), bytes)?;
                }
            }
        }
        let fence = self.streams.fence_setup()?;
        self.wait_for(Vec::from_iter(fence))?;
        self.images.placed_mut().for_each(|placed| placed.is_bank_stale = false);
        self.images.has_stale_banks = false;
        Ok(())
    }
}

fn bases(block: AddressRange, managed: Option<AddressRange>) -> Bases {
    Bases { device: block.address, managed: managed.map_or(0, |managed| managed.address) }
}

/// An image with managed variables alone has a block all the same, by which it is known.
fn block_bytes(layout: &Relocatable) -> u64 {
    layout.bytes().max(1)
}
