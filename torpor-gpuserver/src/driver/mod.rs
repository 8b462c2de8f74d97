//! The CUDA driver, opened by path: the one seam behind which a real GPU or a simulated one stands.
//!
//! [`Driver`] holds the functions of one `libcuda.so.1`; [`Device`] is one GPU with its primary context retained. What
//! the driver makes is owned by a value here ([`Stream`], [`Event`], [`Mapping`], [`CodeLibrary`], …) and given back when
//! the value is dropped, so that no handle outlives its object. Every foreign call of the crate is in this module.
//!
//! Limits: methods work on the calling thread's current context, which must be the device's ([`Device::make_current`]).
//! Errors are what the driver said; dropping ignores them, because a context that is lost refuses to give anything back.

mod array;
mod compile;
mod device;
mod error;
mod event;
mod graph;
mod green;
mod host;
mod launch;
mod library;
mod memory;
mod occupancy;
mod recording;
mod stream;
mod table;
mod tensor_map;
mod texture;
mod tpc_layout;
mod transfer;

pub use array::Array;
pub use compile::link;
pub use device::{Device, Driver};
pub use error::DriverError;
pub(crate) use event::DISABLE_TIMING;
pub use event::Event;
pub use graph::{ExecutableGraph, Graph};
pub use green::{GreenContext, Part};
pub use host::{HostRegistration, PinnedArray, PinnedWords, StreamWord};
pub use launch::LaunchConfig;
pub use library::{CodeLibrary, Kernel};
pub use memory::{Mapping, PhysicalMemory, Reservation};
pub use recording::{BodyGraph, GraphNode, Recording};
pub use stream::{Stream, Word};
pub use texture::{SurfaceObject, TextureObject, TextureSource};
pub use transfer::{Box3d, End, Pitched, Place};

/// A handle of the driver. Pointers there, only numbers here: they are never followed.
type Handle = usize;
