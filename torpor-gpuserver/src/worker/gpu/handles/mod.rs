//! Handles of texture and surface objects. They are the driver's own, for kernels are given them, and a client's objects have the
//! same ones wherever it goes: while an object is away, another one that is nobody's keeps its handle, and at the next GPU objects
//! are made until one has it.
//!
//! Which one an object gets first is chosen by client, so that two that come from different GPUs do not have the same
//! ([`list`]). That the driver gives handles again is believed after a look at the first ones; if it does not, clients with objects
//! stay where they are.

mod list;

use crate::driver::{Array, Device, SurfaceObject, TextureObject, TextureSource};
use crate::worker::gpu::memory::GpuMemory;
use crate::worker::sync::lock;
use list::{List, Numbered};
use std::sync::{Arc, Mutex, MutexGuard};
use torpor_proto::command::{ArrayCreate, ResourceView, Sampler};
use torpor_proto::error::CudaError;

/// What the GPU finds by a handle has an index of so many bits. Higher numbers say something else, too.
const MOST: u64 = 1 << 20;

/// Not how spares are read: between elements, and clamped.
const SMOOTH: Sampler = Sampler {
    address_modes: [1; 3],
    filter: 1,
    flags: 0,
    max_anisotropy: 0,
    level_filter: 0,
    level_bias: 0,
    level_least: 0,
    level_most: 0,
    border: [0; 4],
};

/// Kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Texture objects.
    Texture,
    /// Surface objects.
    Surface,
}

impl Kind {
    fn other(self) -> Self {
        match self {
            Self::Texture => Self::Surface,
            Self::Surface => Self::Texture,
        }
    }
}

/// An object of the driver's.
#[derive(Debug)]
pub(crate) enum Object {
    /// A texture object.
    Texture(TextureObject),
    /// A surface object.
    Surface(SurfaceObject),
}

impl Numbered for Object {
    fn number(&self) -> u64 {
        match self {
            Self::Texture(texture) => texture.handle(),
            Self::Surface(surface) => surface.handle(),
        }
    }
}

#[derive(Debug)]
struct State {
    list: List<Object>,
    /// What objects that are nobody's are over, once there are some.
    nothing: Option<Arc<Array>>,
    /// Whether the driver gives handles again, once that is known.
    come_again: Option<bool>,
}

/// All handles of a GPU.
#[derive(Debug)]
pub(crate) struct Handles {
    device: Arc<Device>,
    memory: Arc<GpuMemory>,
    state: Mutex<State>,
}

/// Why a handle cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unobtainable {
    /// Another client's object has it.
    #[error("another one's texture or surface object has its handle here")]
    Taken,
    /// The driver gives others.
    #[error("the driver does not give its handle")]
    NotGiven,
    /// The driver's error.
    #[error("the driver says {0}")]
    Driver(CudaError),
}

impl From<CudaError> for Unobtainable {
    fn from(error: CudaError) -> Self {
        Self::Driver(error)
    }
}

impl From<Unobtainable> for CudaError {
    fn from(error: Unobtainable) -> Self {
        match error {
            Unobtainable::Taken | Unobtainable::NotGiven => Self::OUT_OF_MEMORY,
            Unobtainable::Driver(error) => error,
        }
    }
}

impl Handles {
    /// None is given out.
    pub(crate) fn new(device: &Arc<Device>, memory: &Arc<GpuMemory>) -> Arc<Self> {
        let state = State { list: List::new(), nothing: None, come_again: None };
        Arc::new(Self { device: device.clone(), memory: memory.clone(), state: Mutex::new(state) })
    }

    /// Whether an object can have the same handle again. It can while there are none.
    pub(crate) fn come_again(&self) -> bool {
        lock(&self.state).come_again != Some(false)
    }

    /// Makes a client's object, with a handle that is nobody else's.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn make(
        self: &Arc<Self>,
        (client, kind): (u64, Kind),
        make: impl Fn() -> Result<Object, CudaError>,
    ) -> Result<Handle, CudaError> {
        let mut state = self.lock()?;
        let nothing = state.nothing.clone();
        let chosen = if state.come_again == Some(true) { state.list.choose(client) } else { None };
        let made = match chosen {
            Some(number) => state.list.make((kind, number), |kind| self.spare(&nothing, kind), &make)?,
            None => None,
        };
        let object = match made {
            Some(made) => made,
            None => make()?,
        };
        let number = object.number();
        state.list.own(number);
        let body = Some(object);
        Ok(Handle { handles: self.clone(), kind, number, body, is_filled: true })
    }

    /// Keeps a handle for a client's object that is still to be made here.
    ///
    /// # Errors
    /// [`Unobtainable`].
    pub(crate) fn claim(self: &Arc<Self>, kind: Kind, number: u64) -> Result<Handle, Unobtainable> {
        let mut state = self.lock()?;
        if state.come_again == Some(false) {
            return Err(Unobtainable::NotGiven);
        }
        if !state.list.own(number) {
            return Err(Unobtainable::Taken);
        }
        let nothing = state.nothing.clone();
        let blank = state.list.blank((kind, number), |kind| self.spare(&nothing, kind));
        if !matches!(blank, Ok(Some(_))) {
            state.list.disown(number);
        }
        let body = Some(blank?.ok_or(Unobtainable::NotGiven)?);
        Ok(Handle { handles: self.clone(), kind, number, body, is_filled: false })
    }

    /// Locks, and looks at the driver first if nobody has.
    fn lock(&self) -> Result<MutexGuard<'_, State>, CudaError> {
        let mut state = lock(&self.state);
        if state.come_again.is_some() {
            return Ok(state);
        }
        let made =
            ArrayCreate { format: 1, channels: 1, flags: 2, width: 16, height: 16, ..ArrayCreate::default() };
        let nothing = Some(Arc::new(self.memory.make(|| Array::new(&self.device, &made))?));
        let mut numbers = Vec::new();
        for kind in [Kind::Texture, Kind::Surface] {
            // How a texture is read must not be in its handle.
            let samplers = [Sampler::default(), SMOOTH];
            let made =
                samplers.map(|sampler| self.blank(&nothing, kind, sampler).map(|object| object.number()));
            let kept = self.spare(&nothing, kind)?;
            for number in made {
                numbers.push([number?, kept.number()]);
            }
            state.list.keep(kind, kept);
        }
        let come_again = numbers.iter().all(|[first, again]| first == again && *first <= MOST);
        tracing::debug!(?numbers, come_again, "the first handles of texture and surface objects");
        if !come_again {
            tracing::warn!(
                ?numbers,
                "this driver gives no handle of a texture or surface object again: functions that have such objects stay on \
                 this GPU, with their arrays"
            );
        }
        state.nothing = nothing;
        state.come_again = Some(come_again);
        Ok(state)
    }

    /// An object that is nobody's.
    fn spare(&self, nothing: &Option<Arc<Array>>, kind: Kind) -> Result<Object, CudaError> {
        self.blank(nothing, kind, Sampler::default())
    }

    fn blank(&self, nothing: &Option<Arc<Array>>, kind: Kind, sampler: Sampler) -> Result<Object, CudaError> {
        let nothing = nothing.as_ref().ok_or(CudaError::NOT_INITIALIZED)?;
        Ok(match kind {
            Kind::Texture => {
                let (over, view) = (TextureSource::Level(nothing, 0), ResourceView::default());
                Object::Texture(TextureObject::new(&self.device, over, sampler, &view)?)
            }
            Kind::Surface => Object::Surface(SurfaceObject::new(&self.device, nothing, 0)?),
        })
    }
}

/// A handle that is a client's, given up when dropped. The object that has it is the client's, or is nobody's and keeps it.
#[derive(Debug)]
pub(crate) struct Handle {
    handles: Arc<Handles>,
    kind: Kind,
    number: u64,
    body: Option<Object>,
    is_filled: bool,
}

impl Handle {
    /// What kernels are given.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether the client's object has it.
    pub(crate) fn is_filled(&self) -> bool {
        self.is_filled
    }

    /// Makes the client's object.
    ///
    /// # Errors
    /// [`Unobtainable`]: the object is still to be made then.
    pub(crate) fn fill(&mut self, make: impl Fn() -> Result<Object, CudaError>) -> Result<(), Unobtainable> {
        if self.is_filled {
            return Ok(());
        }
        let mut state = self.handles.lock()?;
        if let Some(blank) = self.body.take() {
            state.list.keep(self.kind, blank);
        }
        let nothing = state.nothing.clone();
        let spare = |kind| self.handles.spare(&nothing, kind);
        let made = state.list.make((self.kind, self.number), spare, make)?;
        self.body = Some(made.ok_or(Unobtainable::NotGiven)?);
        self.is_filled = true;
        Ok(())
    }

    /// The client's object is no more; its handle is kept.
    ///
    /// # Errors
    /// [`Unobtainable`]: the handle is tried for again when the object is made.
    pub(crate) fn empty(&mut self) -> Result<(), Unobtainable> {
        if !std::mem::take(&mut self.is_filled) {
            return Ok(());
        }
        let mut state = self.handles.lock()?;
        self.body = None;
        let nothing = state.nothing.clone();
        let spare = |kind| self.handles.spare(&nothing, kind);
        self.body = state.list.blank((self.kind, self.number), spare)?;
        if self.body.is_some() { Ok(()) } else { Err(Unobtainable::NotGiven) }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = lock(&self.handles.state);
        match self.body.take() {
            Some(blank) if !self.is_filled => state.list.keep(self.kind, blank),
            object => drop(object),
        }
        state.list.disown(self.number);
    }
}
