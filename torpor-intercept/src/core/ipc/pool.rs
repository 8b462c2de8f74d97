//! Memory pools of other processes, and this one's for them (`cuMemPoolExportToShareableHandle`, `cuMemPoolExportPointer` and
//! what imports these).
//!
//! A pool that is imported has no memory: its descriptor says which pool of which process it is, so that nobody takes a block
//! for one of another pool. A block is exported and opened as an allocation is ([`super::opened`]), and goes back as a block
//! does, by `cuMemFree` or `cuMemFreeAsync`.

use super::IpcHandle;
use super::descriptor::{read_descriptor, write_descriptor};
use super::opened::As;
use crate::core::pool::{Pool, PoolKind, PoolName, Sharing};
use crate::core::{Client, CudaResult, devices};
use bytemuck::{Pod, Zeroable};
use std::os::fd::RawFd;
use torpor_proto::error::CudaError;

/// What the file of a pool's descriptor holds.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Contents {
    kind: [u8; 8],
    name: PoolName,
    device: u64,
}

const KIND: [u8; 8] = *b"torporP1";

impl Client {
    /// A new descriptor, the program's to close, for a pool.
    ///
    /// # Errors
    /// `INVALID_VALUE` for a pool that was not created for that, or was imported; `OPERATING_SYSTEM` without descriptors.
    pub fn export_pool(&'static self, pool: &Pool) -> CudaResult<RawFd> {
        self.check_usable()?;
        let Sharing::Exportable { number } = pool.sharing() else { return Err(CudaError::INVALID_VALUE) };
        let name = PoolName { exporter: self.id, number };
        write_descriptor("torpor-memory-pool", &Contents { kind: KIND, name, device: pool.device().into() })
    }

    /// The pool behind a descriptor, which stays the program's. Nothing is allocated from it.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it is no such descriptor; `OUT_OF_MEMORY` with thousands of pools.
    pub fn import_pool(&'static self, descriptor: RawFd) -> CudaResult<&'static Pool> {
        self.check_usable()?;
        let Contents { kind, name, device } = read_descriptor(descriptor)?;
        // What another process sees may be fewer devices, all of which are one GPU.
        let device = u32::try_from(device).ok().filter(|&device| device < devices::count()).unwrap_or(0);
        if kind == KIND {
            Pool::create(device, PoolKind { sharing: Sharing::Imported(name), ..PoolKind::default() })
        } else {
            Err(CudaError::INVALID_VALUE)
        }
    }

    /// `cuMemPoolExportPointer`.
    ///
    /// # Errors
    /// `INVALID_VALUE` if no block begins there that the program has of a pool that was created for that.
    pub fn export_block(&'static self, address: u64) -> CudaResult<IpcHandle> {
        self.check_usable()?;
        let sharing = Pool::of_used(address).map(Pool::sharing);
        let Some(Sharing::Exportable { number }) = sharing else { return Err(CudaError::INVALID_VALUE) };
        let found = self.allocation_to_export(address, |block| block == address)?;
        self.export_allocation(found, IpcHandle::POOLED, number)
    }

    /// `cuMemPoolImportPointer`: where a block of another process begins here.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it is not of the pool that was imported, of this process, (any more) nobody's, or another function's.
    pub fn import_block(&'static self, pool: &'static Pool, block: &IpcHandle) -> CudaResult<u64> {
        self.check_usable()?;
        let name = PoolName { exporter: block.exporter, number: block.pool };
        let is_of_pool = block.kind == IpcHandle::POOLED && pool.sharing() == Sharing::Imported(name);
        if !is_of_pool || block.exporter == self.id {
            return Err(CudaError::INVALID_VALUE);
        }
        self.open(block, Some(pool))
    }

    /// Gives back what [`Self::import_block`] gave, behind everything that may still use it; false if that did not give it.
    pub(in crate::core) fn free_imported(&'static self, address: u64) -> CudaResult<bool> {
        if self.ipc.is_used() { self.close(address, As::Block) } else { Ok(false) }
    }

    /// The pool that a block which begins there is of, for this process (`CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE`).
    pub fn pool_of(&self, address: u64) -> Option<&'static Pool> {
        Pool::of_used(address).or_else(|| self.pool_of_block(address))
    }
}
