//! Giving a client variables of its own, and keeping their two places equal (`objects::variables`).

use crate::driver::Place;
use crate::state_file::Void;
use crate::worker::gpu::images::{Image, Instance};
use crate::worker::objects::pending::{Kept, Pending};
use crate::worker::objects::variables::{CodePointers, Own, Placed};
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use std::sync::Arc;
use torpor_proto::error::CudaError;
use torpor_proto::image::relocate::{Bases, Immovable, Relocatable};
use torpor_proto::layout::AddressRange;

/// A block, the one of managed variables, the code for them, and what points to it.
type PlacedCode = ((AddressRange, Option<AddressRange>), (Option<Arc<Instance>>, Vec<CodePointers>));

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
                        Ok(Ok((blocks, code))) => {
                            if blocks.1.is_some() {
                                // Its kernels reach memory that the program writes from now on.
                                self.uncover(Void::Managed);
                            }
                            return Ok(Own::Placed(Box::new(Placed::new(blocks, layout, code))));
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
        let code = match self.load_relocated(image, layout, bases) {
            Ok(instance) => {
                let pointers = CodePointers::of(layout, block, instance.as_deref());
                Ok(pointers.map(|pointers| (instance, pointers)))
            }
            Err(error) if error.is_sticky() => Err(error),
            Err(error) => Ok(Err(Immovable::Refused(error.0))),
        };
        let code = match code {
            Ok(Ok(code)) => code,
            refused => {
                self.variables.release(block.address);
                self.release_managed(managed)?;
                return Ok(refused?.map(|code| ((block, managed), code)));
            }
        };
        let filled = self.fill_block(block, segment, (layout, bases), &code.1);
        if let Err(halt) = filled.and_then(|()| Ok(self.fill_managed(layout, bases)?)) {
            self.release_block(block.address)?;
            self.release_managed(managed)?;
            return Err(halt);
        }
        Ok(Ok(((block, managed), code)))
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
        code_pointers: &[CodePointers],
    ) -> Result<(), Halt> {
        if self.space.is_segment(segment.address) {
            let group = self.group_of(&[segment.address])?;
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
        self.post_code_pointers(code_pointers)?;
        let fence = self.streams.fence_setup()?;
        self.wait_for(Vec::from_iter(fence))
    }

    /// Copies pointers to code out of the driver's copies of variables into a block, which is here or under way.
    fn post_code_pointers(&mut self, pointers: &[CodePointers]) -> Result<(), Halt> {
        for &CodePointers { in_block: AddressRange { address, bytes }, in_copy } in pointers {
            self.note_copied_into(address, bytes);
            // SAFETY: the copy is the instance's, the block's segment is mapped and its contents come in the same stream, and
            // both stay until the client's streams are idle.
            unsafe {
                let stream = self.streams.enter_setup();
                stream.copy((Place::Device, address), (Place::Device, in_copy), bytes as usize)?;
            }
        }
        Ok(())
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
        let code_pointers = CodePointers::of(&layout, block, instance.as_deref());
        let code_pointers = code_pointers.map_err(|_| CudaError::INVALID_IMAGE)?;
        let mut placed = Placed::new((block, managed), layout, (instance, code_pointers));
        placed.is_stale = !placed.constants.is_empty() || !placed.code_pointers.is_empty();
        self.images.has_stale |= placed.is_stale;
        Ok(placed)
    }

    /// The program copies what is there: if that points to code, it has copies from then on, which would lead nowhere on another GPU.
    pub(crate) fn note_code_read(&mut self, address: u64, bytes: u64) {
        if !self.space.arena().for_variables().contains(address, 0) {
            return;
        }
        let mut is_read = false;
        for known in self.images.table.values_mut() {
            if let Own::Placed(placed) = &mut known.own
                && !placed.is_code_read
                && placed.points_to_code(AddressRange { address, bytes })
            {
                (placed.is_code_read, is_read) = (true, true);
                if known.image.is_news() {
                    tracing::warn!(
                        client = self.link.client,
                        function = %self.link.function,
                        image = %known.image.short_name(),
                        "a program copies a variable that points to code, so it stays on this GPU"
                    );
                }
            }
        }
        if is_read {
            self.tell_fixed_images();
            self.uncover(Void::Code);
        }
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

    /// Gives instances that were loaded for a block from another worker what they must have in common: the block gets their
    /// pointers to code, and then their banks what is in the block. Its memory is being brought.
    pub(crate) fn renew_variables(&mut self) -> Result<(), Halt> {
        if !self.images.has_stale {
            return Ok(());
        }
        let stale = |placed: &&mut Placed| placed.is_stale;
        let whole = |placed: &mut Placed| {
            let copies = placed.copies_into_bank(placed.block.address, placed.block.bytes);
            (placed.block.address, placed.code_pointers.clone(), copies.collect::<Vec<_>>())
        };
        let blocks: Vec<_> = self.images.placed_mut().filter(stale).map(whole).collect();
        for (address, code_pointers, copies) in blocks {
            let group = self.group_of(&[address])?;
            self.bring_up_to(group)?;
            self.post_code_pointers(&code_pointers)?;
            self.residency.has_changed |= !code_pointers.is_empty();
            for (to, from, bytes) in copies {
                // SAFETY: as in `follow_into_banks`; the block's contents come in the same stream.
                unsafe {
                    self.streams.enter_setup().copy((Place::Device, to), (Place::Device, from), bytes)?;
                }
            }
        }
        let fence = self.streams.fence_setup()?;
        self.wait_for(Vec::from_iter(fence))?;
        self.images.placed_mut().for_each(|placed| placed.is_stale = false);
        self.images.has_stale = false;
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
