//! The client core: what the CUDA functions mean, without their C shapes.
//!
//! A [`Client`] is this process's connection to the node. Everything it holds is data: identifiers, addresses and
//! counters; nothing names a GPU.

mod address_space;
mod capture;
mod channel;
mod client;
mod connect;
mod context;
mod copiers;
mod copy;
mod device;
mod event;
mod fork;
mod graph;
mod handle;
mod helper_thread;
mod host_function;
mod image;
mod kernel;
mod launch;
mod link;
mod memory;
mod occupancy;
mod owed;
mod pinned;
pub mod pool;
mod position;
mod registered;
mod remoting;
mod staging;
mod stream;
mod stream_order;
mod tensor_map;

pub use address_space::RangeAllocator;
pub use capture::{Capture, CaptureStatus};
pub use client::{Client, client, initialize};
pub use context::{Context, contexts};
pub use copy::{Direction, Location, StridedCopy};
pub use device::DeviceInfo;
pub use event::Event;
pub use graph::{Graph, GraphExec};
pub use host_function::{Callback, HostFunction, LaunchedFunction};
pub use image::{Image, read_image_file};
pub use kernel::Kernel;
pub use launch::LaunchConfig;
pub use link::Link;
pub use remoting::{Remoting, ask_anyway};
pub use stream::{Stream, StreamHandle};

use torpor_proto::error::CudaError;

/// What the core's functions give.
pub type CudaResult<T> = Result<T, CudaError>;
