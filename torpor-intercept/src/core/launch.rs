//! Launching: a kernel's parameters gathered into one record.

use super::event::Event;
use super::graph::{Edge, EdgeData, kernel_work};
use super::kernel::Kernel;
use super::profile::{Work, WorkKind, bracketed};
use super::stream::Stream;
use super::{Client, CudaResult, client, devices};
use std::ffi::c_void;
use std::ptr;
use torpor_proto::command::{EVENT_LAUNCH_ATTRIBUTES, Launch, LaunchAttribute, LaunchShape};
use torpor_proto::error::CudaError;

/// Bytes of attributes and parameters that are gathered on the stack; more go through the heap.
const INLINE_WORDS: usize = 64;

/// `CU_LAUNCH_PARAM_*` (cuda.h): what the words of `extra` mean.
const PARAM_END: usize = 0;
const PARAM_BUFFER_POINTER: usize = 1;
const PARAM_BUFFER_SIZE: usize = 2;

/// The size of a launch, and how it is to be done.
#[derive(Clone, Copy, Debug)]
pub struct LaunchConfig<'a> {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// `CUlaunchAttribute`s.
    pub attributes: &'a [LaunchAttribute],
}

impl LaunchConfig<'_> {
    pub(super) fn shape(&self, kernel: &Kernel, stream: u32) -> LaunchShape {
        LaunchShape {
            kernel: kernel.number,
            stream,
            grid: self.grid,
            block: self.block,
            shared_bytes: self.shared_bytes,
            attributes: self.attributes.len() as u32,
            parameter_bytes: 0,
            reserved: 0,
        }
    }

    /// The attributes as they travel: with events' numbers in place of the program's handles.
    pub(super) fn portable_attributes(&self) -> CudaResult<Vec<LaunchAttribute>> {
        self.attributes
            .iter()
            .map(|attribute| {
                let mut attribute = *attribute;
                if EVENT_LAUNCH_ATTRIBUTES.contains(&attribute.id) {
                    attribute.value[0] = event_of(&attribute)?.number.into();
                }
                Ok(attribute)
            })
            .collect()
    }

    fn names_events(&self) -> bool {
        self.attributes.iter().any(|attribute| EVENT_LAUNCH_ATTRIBUTES.contains(&attribute.id))
    }

    /// The events that the launch records.
    fn events(&self) -> impl Iterator<Item = CudaResult<&'static Event>> {
        let named = self.attributes.iter().filter(|named| EVENT_LAUNCH_ATTRIBUTES.contains(&named.id));
        named.map(event_of)
    }
}

/// The event that an attribute's value begins with.
fn event_of(attribute: &LaunchAttribute) -> CudaResult<&'static Event> {
    Event::find(ptr::with_exposed_provenance_mut(attribute.value[0] as usize))
}

impl Kernel {
    /// Launches it (`cuLaunchKernel`, `cuLaunchKernelEx`).
    ///
    /// # Errors
    /// `INVALID_VALUE` for what cannot be launched, or errors of earlier posted commands.
    ///
    /// # Safety
    /// `parameters` (one pointer for each parameter) or `extra` are as CUDA wants them for this kernel.
    #[inline]
    pub unsafe fn launch(
        &'static self,
        config: &LaunchConfig<'_>,
        stream: &'static Stream,
        parameters: *const *const c_void,
        extra: *const *const c_void,
    ) -> CudaResult<()> {
        let client = client()?;
        if devices::are_several() && self.device != stream.device() {
            let here = self.on(stream.device())?;
            if !ptr::eq(here, self) {
                // SAFETY: the caller's promise; it is the same kernel, of another device.
                return unsafe { here.launch_here(client, config, stream, parameters, extra) };
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.launch_here(client, config, stream, parameters, extra) }
    }

    /// As [`Self::launch`], of a kernel of the stream's device.
    ///
    /// # Safety
    /// As [`Self::launch`].
    #[inline]
    unsafe fn launch_here(
        &'static self,
        client: &'static Client,
        config: &LaunchConfig<'_>,
        stream: &'static Stream,
        parameters: *const *const c_void,
        extra: *const *const c_void,
    ) -> CudaResult<()> {
        self.check_launch(config.grid, config.block, config.shared_bytes)?;
        if !config.attributes.is_empty() {
            self.check_attributes(config, stream)?;
            if stream.is_capturing() && config.names_events() {
                // SAFETY: the caller's promise.
                return unsafe { self.launch_in_capture(config, stream, parameters, extra) };
            }
        }
        let attribute_bytes = size_of_val(config.attributes);
        let bytes = attribute_bytes + self.parameter_bytes as usize;
        let mut inline = [0u64; INLINE_WORDS];
        let mut large = Vec::new();
        let words = bytes.div_ceil(8);
        let buffer: &mut [u64] = if words <= INLINE_WORDS {
            &mut inline[..words]
        } else {
            large.resize(words, 0);
            &mut large
        };
        let tail = &mut bytemuck::cast_slice_mut::<u64, u8>(buffer)[..bytes];
        if attribute_bytes > 0 {
            tail[..attribute_bytes].copy_from_slice(bytemuck::cast_slice(&config.portable_attributes()?));
        }
        // SAFETY: the caller's promise.
        unsafe { self.gather(&mut tail[attribute_bytes..], parameters, extra)? };
        let mut shape = config.shape(self, stream.number);
        shape.parameter_bytes = self.parameter_bytes;
        let work = || self.profiled(config);
        if config.attributes.is_empty() {
            let post = || stream.post(client, &Launch { shape }, tail);
            return bracketed(WorkKind::Kernels, stream, work, post);
        }
        let events = config.events().collect::<CudaResult<Vec<_>>>()?;
        let begun: Vec<_> = events.iter().map(|event| event.begin_record()).collect();
        let post = || stream.post_behind(client, &Launch { shape }, tail, None);
        let posted = bracketed(WorkKind::Kernels, stream, work, post);
        let held = posted.ok().flatten();
        events.iter().zip(&begun).for_each(|(event, begun)| event.end_record(begun, held));
        posted.map(|_| ())
    }

    /// A launch as a profiler sees it.
    fn profiled(&'static self, config: &LaunchConfig<'_>) -> Work {
        let LaunchConfig { grid, block, shared_bytes, .. } = *config;
        Work::Kernel { kernel: self, grid, block, shared_bytes }
    }

    /// As [`Self::launch`], where events among the attributes stand for nodes, as in any capture.
    ///
    /// # Safety
    /// As [`Self::launch`].
    #[cold]
    unsafe fn launch_in_capture(
        &self,
        config: &LaunchConfig<'_>,
        stream: &'static Stream,
        parameters: *const *const c_void,
        extra: *const *const c_void,
    ) -> CudaResult<()> {
        let is_event = |attribute: &&LaunchAttribute| EVENT_LAUNCH_ATTRIBUTES.contains(&attribute.id);
        let events = config.attributes.iter().filter(is_event);
        let events = events.map(|attribute| Ok((attribute.id, event_of(attribute)?)));
        let events = events.collect::<CudaResult<Vec<_>>>()?;
        let others: Vec<_> =
            config.attributes.iter().filter(|attribute| !is_event(attribute)).copied().collect();
        let config = LaunchConfig { attributes: &others, ..*config };
        // SAFETY: the caller's promise.
        let work = unsafe { kernel_work(self, &config, parameters, extra)? };
        let capture = stream.current_capture()?;
        let from = capture.append_work(stream, work)?;
        for (attribute, event) in events {
            event
                .note_captured(&capture, vec![Edge { from, data: EdgeData::of_launch_attribute(attribute) }]);
        }
        Ok(())
    }

    /// Writes the parameter block.
    ///
    /// # Safety
    /// As [`Self::launch`].
    pub(super) unsafe fn gather(
        &self,
        block: &mut [u8],
        parameters: *const *const c_void,
        extra: *const *const c_void,
    ) -> CudaResult<()> {
        if block.is_empty() {
            return Ok(());
        }
        if !parameters.is_null() {
            for (index, parameter) in self.parameters.iter().enumerate() {
                let (start, length) = (parameter.offset as usize, parameter.bytes as usize);
                let place = block.get_mut(start..start + length).ok_or(CudaError::INVALID_VALUE)?;
                // SAFETY: there is a pointer for each parameter, to a value of the parameter's size (cuLaunchKernel).
                unsafe {
                    ptr::copy_nonoverlapping((*parameters.add(index)).cast(), place.as_mut_ptr(), length)
                };
            }
            return Ok(());
        }
        if extra.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        // SAFETY: extra is a list of pairs that ends with CU_LAUNCH_PARAM_END (cuLaunchKernel).
        let (buffer, bytes) = unsafe { packed_parameters(extra) }.ok_or(CudaError::INVALID_VALUE)?;
        if buffer.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        // NCCL's kernels have parameters of 4 KiB, and it gives as much of them as they look at.
        let (given, rest) = block.split_at_mut(bytes.min(block.len()));
        // SAFETY: the buffer has at least that many bytes (cuLaunchKernel).
        unsafe { ptr::copy_nonoverlapping(buffer, given.as_mut_ptr(), given.len()) };
        rest.fill(0);
        Ok(())
    }
}

/// Buffer and size out of `extra`.
///
/// # Safety
/// `extra` is a list of pairs that ends with `CU_LAUNCH_PARAM_END`.
unsafe fn packed_parameters(extra: *const *const c_void) -> Option<(*const u8, usize)> {
    let (mut buffer, mut bytes) = (ptr::null(), None);
    // cuda.h knows two kinds of pairs; a list that goes on beyond four is not one.
    for pair in 0..4 {
        // SAFETY: the list has not ended before this pair (the caller's promise).
        let (what, value) =
            unsafe { (*extra.add(2 * pair), *extra.add(2 * pair + 1).cast::<*const c_void>()) };
        match what.addr() {
            PARAM_END => return bytes.map(|bytes| (buffer, bytes)),
            PARAM_BUFFER_POINTER => buffer = value.cast(),
            // SAFETY: the value points to a size_t (cuLaunchKernel).
            PARAM_BUFFER_SIZE => bytes = Some(unsafe { value.cast::<usize>().read() }),
            _ => return None,
        }
    }
    None
}
