//! Handles of texture and surface objects. They are the driver's own, for kernels are given them, and a client's objects have the
//! same ones wherever it goes: while an object is away its handle is nobody else's, and at its return, and at the next GPU, objects are
//! made until one has it ([`list`]).
//!
//! That the driver gives handles again is believed once it was seen; until then clients with objects stay where they are.

mod list;

use crate::driver::{Array, Device, SurfaceObject, TextureObject, TextureSource};
use crate::worker::gpu::memory::GpuMemory;
use crate::worker::sync::lock;
use list::{A_LOOK, ALL, List, Numbered, find};
use std::sync::{Arc, Mutex, MutexGuard};
use torpor_proto::command::{ArrayCreate, ResourceView, Sampler};
use torpor_proto::error::CudaError;

/// Kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Texture objects.
    Texture,
    /// Surface objects.
    Surface,
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

#[derive(Debug, Default)]
struct State {
    list: List,
    /// What the objects are over by which the driver is looked at.
    nothing: Option<Arc<Array>>,
    /// Whether the driver was seen to give a handle again.
    come_again: bool,
    /// Whether it was looked at.
    is_known: bool,
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
        Arc::new(Self { device: device.clone(), memory: memory.clone(), state: Mutex::default() })
    }

    /// Whether an object can have the same handle again. It can while there are none.
    pub(crate) fn come_again(&self) -> bool {
        let state = lock(&self.state);
        state.come_again || !state.is_known
    }

    /// Makes a client's object, with a handle that is nobody else's.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn make(
        self: &Arc<Self>,
        client: u64,
        make: impl Fn() -> Result<Object, CudaError>,
    ) -> Result<Handle, CudaError> {
        let object = self.lock()?.list.make(client, make)?;
        Ok(Handle { handles: self.clone(), number: object.number(), object: Some(object) })
    }

    /// Keeps a handle for a client's object that is still to be made here.
    ///
    /// # Errors
    /// [`Unobtainable`].
    pub(crate) fn claim(self: &Arc<Self>, number: u64) -> Result<Handle, Unobtainable> {
        let mut state = self.lock()?;
        if !state.come_again {
            return Err(Unobtainable::NotGiven);
        }
        if !state.list.own(number) {
            return Err(Unobtainable::Taken);
        }
        Ok(Handle { handles: self.clone(), number, object: None })
    }

    /// Locks, and looks at the driver unless it is known to give handles again: that is not seen while a kernel runs for long.
    fn lock(&self) -> Result<MutexGuard<'_, State>, CudaError> {
        let mut state = lock(&self.state);
        if state.come_again {
            return Ok(state);
        }
        let nothing = match state.nothing.take() {
            Some(nothing) => nothing,
            None => {
                let small = ArrayCreate {
                    format: 1,
                    channels: 1,
                    flags: 2,
                    width: 16,
                    height: 16,
                    ..ArrayCreate::default()
                };
                Arc::new(self.memory.make(|| Array::new(&self.device, &small))?)
            }
        };
        let mut come_again = true;
        for kind in [Kind::Texture, Kind::Surface] {
            let blank = || self.blank(&nothing, kind);
            let number = blank()?.number();
            let again = find(number, A_LOOK, blank)?.is_some();
            tracing::debug!(
                ?kind,
                number,
                again,
                "a handle of a texture or surface object, and whether it came again"
            );
            come_again &= again;
        }
        if !come_again && !state.is_known {
            tracing::warn!(
                "this driver gives no handle of a texture or surface object again so far: functions that have such objects stay on this \
                 GPU, with their arrays"
            );
        }
        state.nothing = (!come_again).then_some(nothing);
        (state.come_again, state.is_known) = (come_again, true);
        Ok(state)
    }

    /// An object that is nobody's.
    fn blank(&self, nothing: &Arc<Array>, kind: Kind) -> Result<Object, CudaError> {
        Ok(match kind {
            Kind::Texture => {
                let (over, view) = (TextureSource::Level(nothing, 0), ResourceView::default());
                Object::Texture(TextureObject::new(&self.device, over, Sampler::default(), &view)?)
            }
            Kind::Surface => Object::Surface(SurfaceObject::new(&self.device, nothing, 0)?),
        })
    }
}

/// A handle that is a client's, given up when dropped.
#[derive(Debug)]
pub(crate) struct Handle {
    handles: Arc<Handles>,
    number: u64,
    /// The client's, unless it is away.
    object: Option<Object>,
}

impl Handle {
    /// What kernels are given.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether the client's object has it.
    pub(crate) fn is_filled(&self) -> bool {
        self.object.is_some()
    }

    /// Makes the client's object.
    ///
    /// # Errors
    /// [`Unobtainable`]: the object is still to be made then.
    pub(crate) fn fill(&mut self, make: impl Fn() -> Result<Object, CudaError>) -> Result<(), Unobtainable> {
        if self.object.is_none() {
            // Nobody else makes one meanwhile.
            let _state = self.handles.lock()?;
            self.object = Some(find(self.number, ALL, make)?.ok_or(Unobtainable::NotGiven)?);
        }
        Ok(())
    }

    /// The client's object is no more; its handle is kept.
    pub(crate) fn empty(&mut self) {
        self.object = None;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = lock(&self.handles.state);
        self.object = None;
        state.list.disown(self.number);
    }
}
