//! What the two sides of Torpor share: the layout of their memory, the ring, the commands, the control messages.
//!
//! A client (the preloaded library) and a worker (one process per GPU) meet in a *channel*: a piece of shared memory
//! with a ring of commands and an area for answers. Everything that must reach the GPU is one of the commands
//! declared in [`command`]. Nothing in here touches CUDA.

#[cfg(not(loom))]
pub mod channel;
pub mod command;
pub mod completion;
#[cfg(not(loom))]
pub mod control;
#[cfg(not(loom))]
pub mod directory;
pub mod error;
#[cfg(not(loom))]
pub mod handover;
#[cfg(not(loom))]
pub mod image;
pub mod layout;
#[cfg(not(loom))]
pub mod mapping;
pub mod ring;
pub mod staging;
pub mod sync;
#[cfg(not(loom))]
pub mod zmtp;

/// The version of everything in this crate that crosses a process boundary. Both sides must have the same.
pub const PROTOCOL_VERSION: u32 = 6;
