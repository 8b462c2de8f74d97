//! A client's arrays by its numbers, and its texture and surface objects by the driver's handles.

use crate::driver::{Array, SurfaceObject, TextureObject};
use crate::worker::gpu::memory::kept::KeptBytes;
use crate::worker::objects::array_shape::ArrayShape;
use crate::worker::objects::table::Table;
use std::collections::HashMap;
use std::rc::Rc;
use torpor_proto::error::CudaError;

/// Arrays of a client.
pub(crate) const MOST_ARRAYS: u32 = 4096;

/// Texture and surface objects of a client: all clients of a GPU have about a million together.
pub(crate) const MOST_OBJECTS: usize = 16_384;

/// An array, for as long as the client's number or an object over it is there. Fields are dropped in this order.
#[derive(Debug)]
pub(crate) struct ClientArray {
    pub(crate) array: Array,
    pub(crate) shape: ArrayShape,
    #[expect(dead_code, reason = "kept for its drop alone")]
    pub(crate) kept: KeptBytes,
}

/// A texture or surface object, dropped before the array that it is over.
#[derive(Debug)]
#[expect(dead_code, reason = "kept for its drop alone")]
pub(crate) struct Object<T> {
    pub(crate) object: T,
    pub(crate) over: Option<Rc<ClientArray>>,
}

/// What a client has of these.
#[derive(Debug)]
pub(crate) struct Arrays {
    pub(crate) textures: HashMap<u64, Object<TextureObject>>,
    pub(crate) surfaces: HashMap<u64, Object<SurfaceObject>>,
    pub(crate) table: Table<Rc<ClientArray>>,
    numbers: u32,
}

impl Arrays {
    /// None.
    pub(crate) fn new() -> Self {
        let table = Table::new(MOST_ARRAYS);
        Self { textures: HashMap::new(), surfaces: HashMap::new(), table, numbers: 0 }
    }

    /// Gives a number to an array.
    pub(crate) fn insert(&mut self, array: u32, made: ClientArray) -> Result<(), CudaError> {
        self.table.insert(array, Rc::new(made))?;
        self.numbers += 1;
        Ok(())
    }

    /// Takes a number back. Objects over the array keep that.
    pub(crate) fn remove(&mut self, array: u32) -> Result<Rc<ClientArray>, CudaError> {
        let removed = self.table.remove(array)?;
        self.numbers -= 1;
        Ok(removed)
    }

    /// How many arrays and objects there are.
    pub(crate) fn count(&self) -> u32 {
        self.numbers + self.objects() as u32
    }

    /// How many texture and surface objects there are.
    pub(crate) fn objects(&self) -> usize {
        self.textures.len() + self.surfaces.len()
    }

    /// Whether the client has any of these, and so stays on its GPU.
    pub(crate) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Whether kernels may reach memory by a handle, where nobody sees its address.
    #[inline]
    pub(crate) fn hide_pointers(&self) -> bool {
        self.objects() > 0
    }
}
