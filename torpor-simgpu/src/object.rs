//! Texture and surface objects by their handles: small numbers that both kinds share, as kernels find both in one list. The
//! lowest that is free is given out, or one that never was ([`ObjectHandles`]).

use std::collections::{BTreeMap, BTreeSet};
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

#[derive(Debug, Default)]
struct Entries {
    taken: BTreeMap<u64, Object>,
    /// Handles that were given out before.
    free: BTreeSet<u64>,
    /// The highest that was given out.
    last: u64,
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
    pub fn add(&self, object: Object) -> u64 {
        let mut entries = self.write();
        let free = match self.handles {
            ObjectHandles::Lowest => entries.free.pop_first(),
            ObjectHandles::New => None,
        };
        let handle = free.unwrap_or(entries.last + 1);
        entries.last = entries.last.max(handle);
        entries.taken.insert(handle, object);
        handle
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
        let mut entries = self.write();
        if entries.taken.remove(&handle).is_some() {
            entries.free.insert(handle);
        }
    }

    /// Takes out all of a device.
    pub fn remove_all(&self, device: usize) {
        let mut entries = self.write();
        let removed = entries.taken.extract_if(.., |_, object| match object {
            Object::Texture(texture) => texture.device == device,
            Object::Surface(surface) => surface.array.device == device,
        });
        let removed: Vec<_> = removed.map(|(handle, _)| handle).collect();
        entries.free.extend(removed);
    }
}
