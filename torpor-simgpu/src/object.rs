//! Texture and surface objects by their handles: small numbers that both kinds share, as kernels find both in one list.
//! [`ObjectHandles`] says which one is given out.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::config::ObjectHandles;
use crate::error::{CudaError, Result};
use crate::texture::{Surface, Texture};

/// What a handle stands for.
#[derive(Debug, Clone)]
pub enum Object {
    /// A texture object.
    Texture(Arc<Texture>),
    /// A surface object.
    Surface(Arc<Surface>),
}

/// How many handles there are, and how many of them are looked through before the next ones (an H100 with driver 580).
const ALL: u64 = 1 << 17;
const WORD: u64 = 64;

#[derive(Debug, Default)]
struct Entries {
    taken: BTreeMap<u64, Object>,
    /// The last that was given out, and the highest.
    last: u64,
    highest: u64,
}

impl Entries {
    /// The lowest that is free in the word of the last one, or in the next word that has one.
    fn in_word(&self) -> Option<u64> {
        let first = self.last.saturating_sub(1) / WORD * WORD;
        let mut all = (first..ALL).chain(0..first).map(|index| index + 1);
        all.find(|handle| !self.taken.contains_key(handle))
    }
}

/// All objects of the machine.
#[derive(Debug)]
pub struct Objects {
    handles: ObjectHandles,
    entries: RwLock<Entries>,
}

impl Objects {
    /// None.
    pub fn new(handles: ObjectHandles) -> Self {
        Self { handles, entries: RwLock::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an object; returns its handle.
    ///
    /// # Errors
    /// Out of memory, if there are none left.
    pub fn add(&self, object: Object) -> Result<u64> {
        let mut entries = self.write();
        let handle = match self.handles {
            ObjectHandles::InWord => entries.in_word().ok_or(CudaError::OUT_OF_MEMORY)?,
            ObjectHandles::New => entries.highest + 1,
        };
        entries.last = handle;
        entries.highest = entries.highest.max(handle);
        entries.taken.insert(handle, object);
        Ok(handle)
    }

    /// The texture object behind a handle.
    pub fn texture(&self, handle: u64) -> Result<Arc<Texture>> {
        match self.read().taken.get(&handle) {
            Some(Object::Texture(texture)) => Ok(texture.clone()),
            _ => Err(CudaError::INVALID_VALUE),
        }
    }

    /// The surface object behind a handle.
    pub fn surface(&self, handle: u64) -> Result<Arc<Surface>> {
        match self.read().taken.get(&handle) {
            Some(Object::Surface(surface)) => Ok(surface.clone()),
            _ => Err(CudaError::INVALID_VALUE),
        }
    }

    /// Takes one out.
    pub fn remove(&self, handle: u64) {
        self.write().taken.remove(&handle);
    }

    /// Takes out all of a device.
    pub fn remove_all(&self, device: usize) {
        self.write().taken.retain(|_, object| match object {
            Object::Texture(texture) => texture.device != device,
            Object::Surface(surface) => surface.array.device != device,
        });
    }
}
