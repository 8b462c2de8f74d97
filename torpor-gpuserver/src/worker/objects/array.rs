//! A client's arrays by its numbers, and its texture and surface objects by their handles.
//!
//! An array is on the GPU while the client is active, and as long after that as nobody needs the room; else its contents are in the
//! host store alone ([`array_layout`](crate::worker::objects::array_layout)).

use crate::driver::{Array, Device, SurfaceObject, TextureObject, TextureSource};
use crate::worker::gpu::handles::{Handle, Kind, Object};
use crate::worker::gpu::host_store::Place;
use crate::worker::gpu::memory::taken::TakenBytes;
use crate::worker::objects::array_shape::{ArrayShape, element_bytes};
use crate::worker::objects::table::Table;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use torpor_proto::command::{ArrayCreate, SurfaceCreate, TextureCreate, TextureResource};
use torpor_proto::error::CudaError;

/// Arrays of a client.
pub(crate) const MOST_ARRAYS: u32 = 4096;

/// Texture and surface objects of a client: all clients of a GPU have 131,072 together.
pub(crate) const MOST_OBJECTS: usize = 16_384;

/// `CUresourcetype`
pub(crate) const ARRAY: u32 = 0;
pub(crate) const MIPMAPPED_ARRAY: u32 = 1;
const LINEAR: u32 = 2;
const PITCHED: u32 = 3;

/// An array on the GPU, with the memory that it counts as. Fields are dropped in this order.
#[derive(Debug)]
pub(crate) struct Here {
    pub(crate) array: Array,
    #[expect(dead_code, reason = "kept for its drop alone")]
    pub(crate) taken: TakenBytes,
}

/// Bytes that count while this is there.
#[derive(Debug)]
struct Counted(Rc<Cell<u64>>, u64);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - self.1);
    }
}

/// An array, for as long as the client's number or an object over it is there.
#[derive(Debug)]
pub(crate) struct ClientArray {
    pub(crate) made: ArrayCreate,
    pub(crate) shape: ArrayShape,
    /// Where among what is stored its contents begin, if they are there.
    pub(crate) start: Cell<Option<u64>>,
    here: RefCell<Option<Rc<Here>>>,
    #[expect(dead_code, reason = "kept for its drop alone")]
    counted: Counted,
}

impl ClientArray {
    /// One that is not on the GPU. `all_bytes` counts what the client's arrays have.
    ///
    /// # Errors
    /// As [`ArrayShape::new`].
    pub(crate) fn new(made: ArrayCreate, all_bytes: &Rc<Cell<u64>>) -> Result<Self, CudaError> {
        let shape = ArrayShape::new(&made)?;
        all_bytes.set(all_bytes.get() + shape.bytes());
        let counted = Counted(all_bytes.clone(), shape.bytes());
        Ok(Self { made, shape, start: Cell::new(None), here: RefCell::new(None), counted })
    }

    /// It as it is on the GPU.
    ///
    /// # Errors
    /// `CUDA_ERROR_UNKNOWN` if it is not.
    pub(crate) fn here(&self) -> Result<Rc<Here>, CudaError> {
        self.here.borrow().clone().ok_or(CudaError::UNKNOWN)
    }

    /// Whether it is on the GPU.
    pub(crate) fn is_here(&self) -> bool {
        self.here.borrow().is_some()
    }

    /// It has come, with these contents or those that are posted for it, or leaves. The GPU must have done with it then.
    pub(crate) fn set_here(&self, here: Option<Here>) {
        *self.here.borrow_mut() = here.map(Rc::new);
    }
}

/// Elements of a texture over linear memory. Source: CUDA C++ Programming Guide, technical specifications by compute capability, the width of a
/// one-dimensional texture in linear memory.
const MOST_LINEAR_ELEMENTS: u64 = 1 << 28;

/// How an object was made.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Recipe {
    Texture(TextureCreate),
    Surface(SurfaceCreate),
}

impl Recipe {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Texture(_) => Kind::Texture,
            Self::Surface(_) => Kind::Surface,
        }
    }

    /// Of a texture over memory: the addresses that it reads.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for what is no memory.
    pub(crate) fn memory(&self) -> Result<Option<(u64, u64)>, CudaError> {
        let Self::Texture(TextureCreate { resource, .. }) = self else { return Ok(None) };
        let &TextureResource { kind, format, channels, address, width, height, pitch, .. } = resource;
        let element = || element_bytes(format, channels).ok_or(CudaError::INVALID_VALUE);
        let bytes = match kind {
            ARRAY | MIPMAPPED_ARRAY => return Ok(None),
            LINEAR => {
                let element = element()?;
                Some(width).filter(|&bytes| bytes >= element)
            }
            PITCHED if width > 0 && height > 0 => {
                let row_bytes = width.checked_mul(element()?).ok_or(CudaError::INVALID_VALUE)?;
                let rows_before = pitch.checked_mul(height - 1).filter(|_| pitch >= row_bytes);
                rows_before.and_then(|bytes| bytes.checked_add(row_bytes))
            }
            _ => None,
        };
        Ok(Some((address, bytes.ok_or(CudaError::INVALID_VALUE)?)))
    }

    /// Of a texture over linear memory: it ends where the memory does, of which so many bytes are left. The driver looks at no end, and
    /// programs name one that lies behind their memory (NVIDIA's convolutionFFT2D); what they read there has no value.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for what has no element there, more than the driver takes, or rows.
    pub(crate) fn end_within(&mut self, bytes: u64) -> Result<(), CudaError> {
        match self {
            Self::Texture(TextureCreate { resource, .. }) if resource.kind == LINEAR => {
                let element =
                    element_bytes(resource.format, resource.channels).ok_or(CudaError::INVALID_VALUE)?;
                let is_possible = resource.width / element <= MOST_LINEAR_ELEMENTS && bytes >= element;
                resource.width = resource.width.min(bytes / element * element);
                if is_possible { Ok(()) } else { Err(CudaError::INVALID_VALUE) }
            }
            _ => Err(CudaError::INVALID_VALUE),
        }
    }

    /// Makes it. What it is over is there.
    ///
    /// # Errors
    /// The driver's; `CUDA_ERROR_INVALID_VALUE` for what nothing can be over.
    pub(crate) fn make(&self, device: &Arc<Device>, over: Option<&Here>) -> Result<Object, CudaError> {
        Ok(match self {
            Self::Texture(TextureCreate { resource, sampler, view }) => {
                let (format, channels, address) = (resource.format, resource.channels, resource.address);
                let source = match (resource.kind, over) {
                    (ARRAY, Some(over)) => TextureSource::Level(&over.array, resource.level),
                    (MIPMAPPED_ARRAY, Some(over)) => TextureSource::Levels(&over.array),
                    (LINEAR, None) => {
                        TextureSource::Linear { address, format, channels, bytes: resource.width }
                    }
                    (PITCHED, None) => TextureSource::Pitched {
                        address,
                        format,
                        channels,
                        width: resource.width,
                        height: resource.height,
                        pitch: resource.pitch,
                    },
                    _ => return Err(CudaError::INVALID_VALUE),
                };
                Object::Texture(TextureObject::new(device, source, *sampler, view)?)
            }
            Self::Surface(SurfaceCreate { level, .. }) => {
                let over = over.ok_or(CudaError::INVALID_VALUE)?;
                Object::Surface(SurfaceObject::new(device, &over.array, *level)?)
            }
        })
    }
}

/// A texture or surface object, dropped before the array that it is over.
#[derive(Debug)]
pub(crate) struct ClientObject {
    pub(crate) handle: Handle,
    pub(crate) recipe: Recipe,
    pub(crate) over: Option<Rc<ClientArray>>,
}

/// What a client has of these.
#[derive(Debug)]
pub(crate) struct Arrays {
    pub(crate) objects: BTreeMap<(Kind, u64), ClientObject>,
    pub(crate) table: Table<Rc<ClientArray>>,
    numbers: u32,
    /// Where in the host store their contents are.
    pub(crate) stored: Vec<Place>,
    /// Those on the GPU may have other contents than that.
    pub(crate) have_changed: bool,
    /// What those on the GPU count as.
    pub(crate) here_bytes: Rc<Cell<u64>>,
}

impl Arrays {
    /// None.
    pub(crate) fn new() -> Self {
        Self {
            objects: BTreeMap::new(),
            table: Table::new(MOST_ARRAYS),
            numbers: 0,
            stored: Vec::new(),
            have_changed: false,
            here_bytes: Rc::default(),
        }
    }

    /// Gives a number to an array.
    pub(crate) fn insert(&mut self, number: u32, array: Rc<ClientArray>) -> Result<(), CudaError> {
        self.table.insert(number, array)?;
        self.numbers += 1;
        Ok(())
    }

    /// Takes a number back. Objects over the array keep that.
    pub(crate) fn remove(&mut self, number: u32) -> Result<Rc<ClientArray>, CudaError> {
        let removed = self.table.remove(number)?;
        self.numbers -= 1;
        Ok(removed)
    }

    /// How many arrays and objects there are.
    pub(crate) fn count(&self) -> u32 {
        self.numbers + self.objects.len() as u32
    }

    /// Whether there is none of either.
    pub(crate) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// All arrays: those with numbers, with these, and then those that are there for objects alone.
    pub(crate) fn all(&self) -> Vec<(Option<u32>, Rc<ClientArray>)> {
        let mut all: Vec<_> =
            self.table.iter().map(|(number, array)| (Some(number), array.clone())).collect();
        let mut known: HashSet<_> = all.iter().map(|(_, array)| Rc::as_ptr(array)).collect();
        for over in self.objects.values().filter_map(|object| object.over.as_ref()) {
            if known.insert(Rc::as_ptr(over)) {
                all.push((None, over.clone()));
            }
        }
        all
    }

    /// Whether something is to come to the GPU before the client can use it there.
    pub(crate) fn are_to_come(&self) -> bool {
        self.objects.values().any(|object| !object.handle.is_filled())
            || self.table.iter().any(|(_, array)| !array.is_here())
    }

    /// Whether kernels may reach memory by a handle, where nobody sees its address.
    #[inline]
    pub(crate) fn hide_pointers(&self) -> bool {
        !self.objects.is_empty()
    }
}
