//! Memory of other processes, and this one's for them (`cuIpcGetMemHandle`, `cuIpcOpenMemHandle`; of pools, [`super::pool`]).
//!
//! What is opened is an object here, mapped at addresses of this process. It is opened once, however often the program does
//! that.

use super::{IpcHandle, Secret};
use crate::core::pool::Pool;
use crate::core::stream::host_function;
use crate::core::virtual_memory::{Access, DEVICE, ObjectProperties, Source};
use crate::core::{Client, CudaResult, devices};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use torpor_proto::command::MemoryExport;
use torpor_proto::error::CudaError;
use torpor_proto::layout::AddressRange;

/// What this process has opened, by secret.
#[derive(Default)]
pub(in crate::core) struct OpenedMemory {
    by_secret: HashMap<Secret, Opened>,
}

/// Memory of another process.
struct Opened {
    range: AddressRange,
    /// How often each address in it was given to the program, as what.
    opens: BTreeMap<(u64, As), Open>,
}

/// What the program has an address of another process's memory as, which says how it gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum As {
    /// What a handle is of.
    Whole,
    /// A block of a pool.
    Block,
}

struct Open {
    count: u32,
    /// Of a block.
    pool: Option<&'static Pool>,
}

/// `CUmemAllocationProp` of memory of the first device, of which there is no descriptor.
const PROPERTIES: ObjectProperties = [1, 0, 1, 0, 0, 0, 0, 0];

/// `CU_MEM_ACCESS_FLAGS_PROT_READWRITE`
const READ_AND_WRITE: Access = Access(3);

impl Client {
    /// `cuIpcGetMemHandle`: of the allocation that an address lies in.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it is none of `cuMemAlloc`'s.
    pub fn export_memory(&'static self, address: u64) -> CudaResult<IpcHandle> {
        self.check_usable()?;
        let found = self.allocation_to_export(address, |allocation| self.may_export(allocation))?;
        self.export_allocation(found, IpcHandle::MEMORY, 0)
    }

    /// The handle for an allocation, and the segment that it is in.
    pub(super) fn export_allocation(
        &'static self,
        (segment, allocation): (AddressRange, u64),
        kind: [u8; 8],
        pool: u64,
    ) -> CudaResult<IpcHandle> {
        self.begin_sharing()?;
        let secret = self.call(&MemoryExport { home: segment.address }, &[])?.reply.secret;
        let (exporter, bytes, offset) = (self.id, segment.bytes, allocation - segment.address);
        Ok(IpcHandle { kind, secret, exporter, bytes, offset, pool, reserved: 0 })
    }

    /// `cuIpcOpenMemHandle`: where the allocation begins here. Opened again, it is there already.
    ///
    /// # Errors
    /// `INVALID_CONTEXT` if it is of this process; `INVALID_VALUE` if the handle is none (any more), or another function's.
    pub fn open_memory(&'static self, handle: &IpcHandle) -> CudaResult<u64> {
        self.check_usable()?;
        if handle.kind != IpcHandle::MEMORY {
            return Err(CudaError::INVALID_VALUE);
        }
        if handle.exporter == self.id {
            return Err(CudaError::INVALID_CONTEXT);
        }
        self.open(handle, None)
    }

    /// Where what a handle is of begins here: a block, if there is a pool.
    pub(super) fn open(&'static self, handle: &IpcHandle, pool: Option<&'static Pool>) -> CudaResult<u64> {
        let IpcHandle { secret, exporter, bytes, offset, .. } = *handle;
        if offset >= bytes {
            return Err(CudaError::INVALID_VALUE);
        }
        self.begin_sharing()?;
        let mut opened = self.ipc.lock();
        let known = match opened.by_secret.entry(secret) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let range = self.map_import(Source { secret, exporter }, bytes)?;
                new.insert(Opened { range, opens: BTreeMap::new() })
            }
        };
        if offset >= known.range.bytes {
            return Err(CudaError::INVALID_VALUE);
        }
        let address = known.range.address + offset;
        let opened_as = if pool.is_some() { As::Block } else { As::Whole };
        known.opens.entry((address, opened_as)).or_insert(Open { count: 0, pool }).count += 1;
        Ok(address)
    }

    /// The pool that the program imported a block from, which begins at an address.
    pub(super) fn pool_of_block(&self, address: u64) -> Option<&'static Pool> {
        let opened = self.ipc.lock();
        opened.by_secret.values().find_map(|known| known.opens.get(&(address, As::Block))?.pool)
    }

    /// `cuIpcCloseMemHandle`, behind everything that may still use it.
    ///
    /// # Errors
    /// `INVALID_VALUE` if the address is not of [`Self::open_memory`], or was closed as often.
    pub fn close_memory(&'static self, address: u64) -> CudaResult<()> {
        self.check_usable()?;
        host_function::wait_for_all()?;
        if self.close(address, As::Whole)? { Ok(()) } else { Err(CudaError::INVALID_VALUE) }
    }

    /// False if the program does not have the address as that.
    pub(super) fn close(&'static self, address: u64, opened_as: As) -> CudaResult<bool> {
        let (mut opened, key) = (self.ipc.lock(), (address, opened_as));
        let mut all = opened.by_secret.values_mut();
        let Some(known) = all.find(|known| known.opens.contains_key(&key)) else { return Ok(false) };
        if let Some(open) = known.opens.get_mut(&key) {
            open.count -= 1;
            if open.count == 0 {
                known.opens.remove(&key);
            }
        }
        if known.opens.is_empty() {
            let range = known.range;
            opened.by_secret.retain(|_, known| known.range != range);
            self.unmap_import(range)?;
        }
        Ok(true)
    }

    fn map_import(&'static self, source: Source, bytes: u64) -> CudaResult<AddressRange> {
        let mut properties = PROPERTIES;
        properties[DEVICE] = devices::current();
        let home = self.import_new_object(source, bytes, properties)?;
        let mapped = self.reserve_addresses(bytes, 0, 0).and_then(|address| {
            let range = AddressRange { address, bytes };
            let mapped =
                self.map_object(address, bytes, home).and_then(|()| self.set_access(range, READ_AND_WRITE));
            if mapped.is_err() {
                self.free_addresses(address, bytes)?;
            }
            mapped.map(|()| range)
        });
        // What is mapped stays without a handle.
        let released = self.release_object(home);
        mapped.and_then(|range| released.map(|()| range))
    }

    fn unmap_import(&'static self, range: AddressRange) -> CudaResult<()> {
        let unmapped = self.unmap_objects(range);
        self.free_addresses(range.address, range.bytes)?;
        unmapped
    }
}
