//! The client core: what the CUDA functions mean, without their C shapes.
//!
//! A [`Client`] is this process's connection to the node. Everything it holds is data: identifiers, addresses and
//! counters; nothing names a GPU.

mod address_space;
mod array;
mod array_copy;
mod channel;
mod client;
mod compile;
mod connect;
mod context;
mod copiers;
mod copy;
mod coredump;
mod descriptor;
mod device;
pub mod devices;
mod event;
mod fork;
pub mod graph;
pub mod green;
mod handle;
mod helper_thread;
mod image;
mod ipc;
mod kernel;
mod launch;
mod launch_attributes;
mod launch_by_steps;
mod lifeline;
mod limits;
mod line;
mod link;
mod managed;
mod memory;
mod occupancy;
mod owners;
mod owners_order;
pub mod peers;
mod pinned;
pub mod pool;
pub(crate) mod profile;
mod registered;
mod remoting;
mod request;
mod reservations;
mod spin;
mod staging;
mod stream;
mod tensor_map;
mod text;
pub mod texture;
mod timed_stream;
mod twins;
mod virtual_memory;
mod visible;
mod word;

pub use address_space::RangeAllocator;
pub use array::{Array, ArrayShape};
pub use array_copy::{BoxCopy, BoxSide, LineSide};
pub use client::{Client, client, initialize, surveyed_devices, surveyed_sensors};
pub use context::{Context, contexts};
pub use copy::{Direction, Location, StridedCopy};
pub use coredump::CoredumpSetting;
pub use device::{DeviceInfo, PCI_ATTRIBUTES};
pub use event::Event;
pub(crate) use fork::is_forked_child;
pub use graph::{Graph, GraphExec, Node};
pub use image::{Image, read_image_file};
pub use ipc::IpcHandle;
pub use kernel::{Kernel, MOST_THREADS};
pub use launch::LaunchConfig;
pub use link::Link;
pub use managed::{Advice, NO_DEVICE, Place, RangeFacts};
pub use remoting::{Remoting, ask_anyway};
pub use stream::{
    Callback, Capture, CaptureInfo, CaptureStatus, HostFunction, LaunchedFunction, Stream,
    StreamAttributeValue, StreamHandle,
};

pub use virtual_memory::{Access, ObjectProperties};
pub use word::{Width, WordOperation};

use torpor_proto::error::CudaError;

/// What the core's functions give.
pub type CudaResult<T> = Result<T, CudaError>;
