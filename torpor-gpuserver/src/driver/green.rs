//! Parts of the GPU, and green contexts, which have one each.
//!
//! A green context shares its device's primary context: memory, events and code are of both. What runs in its streams has no more
//! multiprocessors than its part.

use super::table::RawDevResource;
use super::{Device, Handle, Stream};
use std::fmt;
use std::sync::Arc;
use torpor_proto::command::PartShape;
use torpor_proto::error::CudaError;

/// `CU_DEV_RESOURCE_TYPE_SM`
const MULTIPROCESSORS: u32 = 1;

/// `CU_GREEN_CTX_DEFAULT_STREAM`, without which no green context is made.
const DEFAULT_STREAM: u32 = 1;

/// `CU_STREAM_NON_BLOCKING`, without which no stream of one is made.
const NON_BLOCKING: u32 = 1;

/// Multiprocessors of a GPU.
#[derive(Clone, Copy)]
pub struct Part(RawDevResource);

impl fmt::Debug for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Part({:?})", self.shape())
    }
}

impl Part {
    const NONE: Self = Self(RawDevResource {
        kind: 0,
        hidden: [0; 92],
        multiprocessors: 0,
        least: 0,
        alignment: 0,
        rest: [0; 9],
    });

    /// How many there are, and how they can be split.
    #[must_use]
    pub fn shape(&self) -> PartShape {
        let RawDevResource { multiprocessors, least, alignment, .. } = self.0;
        PartShape { multiprocessors, least, alignment, reserved: 0 }
    }

    /// Splits it into up to `groups` of at least so many multiprocessors, and what remains.
    ///
    /// # Errors
    /// The driver's.
    pub fn split(
        &self,
        device: &Device,
        groups: u32,
        (flags, least): (u32, u32),
    ) -> Result<(Vec<Self>, Self), CudaError> {
        let mut found = vec![Self::NONE.0; groups as usize];
        let (mut count, mut rest) = (groups, Self::NONE.0);
        // SAFETY: there is room for `count` resources and one more; the one that is read came from the driver.
        CudaError::check(unsafe {
            (device.table().cuDevSmResourceSplitByCount)(
                found.as_mut_ptr(),
                &mut count,
                &self.0,
                &mut rest,
                flags,
                least,
            )
        })?;
        found.truncate(count as usize);
        Ok((found.into_iter().map(Self).collect(), Self(rest)))
    }

    /// How many groups it could be split into.
    ///
    /// # Errors
    /// The driver's.
    pub fn groups(&self, device: &Device, (flags, least): (u32, u32)) -> Result<u32, CudaError> {
        let mut count = 0;
        let none = std::ptr::null_mut();
        // SAFETY: no place for groups asks for their number alone; the resource that is read came from the driver.
        CudaError::check(unsafe {
            (device.table().cuDevSmResourceSplitByCount)(none, &mut count, &self.0, none, flags, least)
        })?;
        Ok(count)
    }
}

impl Device {
    /// The whole GPU.
    ///
    /// # Errors
    /// The driver's.
    pub fn whole(&self) -> Result<Part, CudaError> {
        let mut whole = Part::NONE.0;
        // SAFETY: writes one resource.
        CudaError::check(unsafe {
            (self.table().cuDeviceGetDevResource)(self.ordinal, &mut whole, MULTIPROCESSORS)
        })?;
        Ok(Part(whole))
    }
}

/// A green context.
#[derive(Debug)]
pub struct GreenContext {
    device: Arc<Device>,
    handle: Handle,
    /// That whose part was split for it.
    _parent: Option<Arc<Self>>,
}

impl GreenContext {
    /// Makes one that has these parts of one split.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(
        device: &Arc<Device>,
        parts: &[Part],
        parent: Option<Arc<Self>>,
    ) -> Result<Arc<Self>, CudaError> {
        let mut resources: Vec<_> = parts.iter().map(|part| part.0).collect();
        let (mut description, mut handle) = (0, 0);
        let count = u32::try_from(resources.len()).map_err(|_| CudaError::INVALID_VALUE)?;
        // SAFETY: reads `count` resources, which came from the driver, and writes one handle.
        CudaError::check(unsafe {
            (device.table().cuDevResourceGenerateDesc)(&mut description, resources.as_mut_ptr(), count)
        })?;
        // SAFETY: the description was just made; writes one handle.
        CudaError::check(unsafe {
            (device.table().cuGreenCtxCreate)(&mut handle, description, device.ordinal, DEFAULT_STREAM)
        })?;
        Ok(Arc::new(Self { device: device.clone(), handle, _parent: parent }))
    }

    /// What it has.
    ///
    /// # Errors
    /// The driver's.
    pub fn part(&self) -> Result<Part, CudaError> {
        let mut part = Part::NONE.0;
        // SAFETY: the handle is alive as long as self; writes one resource.
        CudaError::check(unsafe {
            (self.device.table().cuGreenCtxGetDevResource)(self.handle, &mut part, MULTIPROCESSORS)
        })?;
        Ok(Part(part))
    }

    /// Makes a stream of it.
    ///
    /// # Errors
    /// The driver's.
    pub fn stream(self: &Arc<Self>, priority: i32) -> Result<Stream, CudaError> {
        let mut handle = 0;
        // SAFETY: the handle is alive as long as self; writes one handle.
        CudaError::check(unsafe {
            (self.device.table().cuGreenCtxStreamCreate)(&mut handle, self.handle, NON_BLOCKING, priority)
        })?;
        Ok(Stream { device: self.device.clone(), handle, green: Some(self.clone()) })
    }
}

impl Drop for GreenContext {
    fn drop(&mut self) {
        // SAFETY: destroyed once, here; each of its streams holds this value, so is gone.
        let _ = unsafe { (self.device.table().cuGreenCtxDestroy)(self.handle) };
    }
}
