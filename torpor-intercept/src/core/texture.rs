//! Texture and surface objects. Their handles are the driver's own: the program gives them to its kernels.

use super::array::Array;
use super::stream::host_function;
use super::{Client, CudaResult, Location, client};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use torpor_proto::command::{
    ResourceView, Sampler, SurfaceCreate, SurfaceDestroy, TextureCreate, TextureDestroy, TextureResource,
};
use torpor_proto::error::CudaError;

/// What a texture object is over, as the program says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// An array's handle.
    Array(usize),
    /// The handle of an array with several levels.
    Mipmapped(usize),
    /// Memory in a row.
    Linear {
        /// First address.
        address: u64,
        /// `CUarray_format`
        format: u32,
        /// 1, 2 or 4.
        channels: u32,
        /// Length.
        bytes: u64,
    },
    /// Rows with a pitch.
    Pitched {
        /// First address.
        address: u64,
        /// `CUarray_format`
        format: u32,
        /// 1, 2 or 4.
        channels: u32,
        /// Elements of a row.
        width: u64,
        /// Rows.
        height: u64,
        /// Bytes from row to row.
        pitch: u64,
    },
}

fn handle(handle: usize) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(handle)
}

impl Resource {
    fn command(self, client: &Client) -> CudaResult<TextureResource> {
        let none = TextureResource::default();
        let reached = |address, bytes| match client.locate(address, bytes) {
            Location::Device(address) | Location::Pinned(address) => Ok(address),
            Location::Pageable(_) => Err(CudaError::INVALID_VALUE),
        };
        Ok(match self {
            Self::Array(array) => {
                let (array, level) = Array::find(handle(array))?.place();
                TextureResource { kind: 0, array, level, ..none }
            }
            Self::Mipmapped(array) => {
                TextureResource { kind: 1, array: Array::find_mipmapped(handle(array))?.place().0, ..none }
            }
            Self::Linear { address, format, channels, bytes } => {
                let address = reached(address, bytes)?;
                TextureResource { kind: 2, format, channels, address, width: bytes, ..none }
            }
            Self::Pitched { address, format, channels, width, height, pitch } => {
                let bytes = height.checked_mul(pitch).ok_or(CudaError::INVALID_VALUE)?;
                let address = reached(address, bytes)?;
                TextureResource { kind: 3, format, channels, address, width, height, pitch, ..none }
            }
        })
    }
}

/// A texture object as the program made it.
#[derive(Clone, Copy, Debug)]
pub struct Texture {
    /// What it is over.
    pub resource: Resource,
    /// How it is read.
    pub sampler: Sampler,
    /// As what it is seen.
    pub view: ResourceView,
}

#[derive(Default)]
struct Objects {
    textures: HashMap<u64, Texture>,
    /// With their arrays' handles.
    surfaces: HashMap<u64, usize>,
}

fn objects() -> MutexGuard<'static, Objects> {
    static OBJECTS: LazyLock<Mutex<Objects>> = LazyLock::new(Mutex::default);
    OBJECTS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Texture {
    /// `cuTexObjectCreate`: the driver's handle.
    ///
    /// # Errors
    /// `INVALID_VALUE` for memory that is not the program's on the device, `INVALID_HANDLE`; what the worker gives.
    pub fn create(self) -> CudaResult<u64> {
        let client = client()?;
        let Self { sampler, view, .. } = self;
        let command = TextureCreate { resource: self.resource.command(client)?, sampler, view };
        let handle = client.call(&command, &[])?.reply.handle;
        objects().textures.insert(handle, self);
        Ok(handle)
    }

    /// The texture object with this handle.
    ///
    /// # Errors
    /// `INVALID_VALUE`.
    pub fn find(handle: u64) -> CudaResult<Self> {
        objects().textures.get(&handle).copied().ok_or(CudaError::INVALID_VALUE)
    }

    /// `cuTexObjectDestroy`.
    ///
    /// # Errors
    /// `INVALID_VALUE`; what posting gives.
    pub fn destroy(handle: u64) -> CudaResult<()> {
        client()?;
        objects().textures.remove(&handle).ok_or(CudaError::INVALID_VALUE)?;
        host_function::when_posted(move |client| client.post(&TextureDestroy { handle }, &[]))
    }
}

/// `cuSurfObjectCreate`: the driver's handle.
///
/// # Errors
/// `INVALID_HANDLE`; what the worker gives.
pub fn create_surface(array: usize) -> CudaResult<u64> {
    let client = client()?;
    let (number, level) = Array::find(handle(array))?.place();
    let handle = client.call(&SurfaceCreate { array: number, level }, &[])?.reply.handle;
    objects().surfaces.insert(handle, array);
    Ok(handle)
}

/// The handle of the array that a surface object is over.
///
/// # Errors
/// `INVALID_VALUE`.
pub fn array_of_surface(handle: u64) -> CudaResult<usize> {
    objects().surfaces.get(&handle).copied().ok_or(CudaError::INVALID_VALUE)
}

/// `cuSurfObjectDestroy`.
///
/// # Errors
/// `INVALID_VALUE`; what posting gives.
pub fn destroy_surface(handle: u64) -> CudaResult<()> {
    client()?;
    objects().surfaces.remove(&handle).ok_or(CudaError::INVALID_VALUE)?;
    host_function::when_posted(move |client| client.post(&SurfaceDestroy { handle }, &[]))
}
