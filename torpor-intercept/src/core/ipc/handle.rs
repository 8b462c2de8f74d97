//! Handles of 64 bytes: what a program passes on to another process, by whatever way it likes.

use super::Secret;
use bytemuck::{Pod, Zeroable};

/// `CUipcMemHandle`, `CUipcEventHandle`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct IpcHandle {
    /// What kind it is.
    pub(super) kind: [u8; 8],
    pub(super) secret: Secret,
    /// The client that made it.
    pub(super) exporter: u64,
    /// Of memory: how much is imported.
    pub(super) bytes: u64,
    /// Of memory: where the allocation begins in that.
    pub(super) offset: u64,
    /// Of memory of a pool: the pool's number in that client.
    pub(super) pool: u64,
    pub(super) reserved: u64,
}

const _: () = assert!(size_of::<IpcHandle>() == 64);

impl IpcHandle {
    /// Memory.
    pub(super) const MEMORY: [u8; 8] = *b"torporM1";
    /// Memory of a pool.
    pub(super) const POOLED: [u8; 8] = *b"torporB1";
    /// An event.
    pub(super) const EVENT: [u8; 8] = *b"torporE1";
}
