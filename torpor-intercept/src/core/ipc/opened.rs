//! Memory of other processes, and this one's for them (`cuIpcGetMemHandle`, `cuIpcOpenMemHandle`).
//!
//! What is opened is an object here, mapped at addresses of this process. It is opened once, however often the program does
//! that.

use super::{IpcHandle, Secret};
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
    /// How often each address in it was given to the program.
    opens: BTreeMap<u64, u32>,
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
        let (segment, allocation) = self.allocation_to_export(address)?;
        self.begin_sharing()?;
        let secret = self.call(&MemoryExport { home: segment.address }, &[])?.reply.secret;
        Ok(IpcHandle {
            kind: IpcHandle::MEMORY,
            secret,
            exporter: self.id,
            bytes: segment.bytes,
            offset: allocation - segment.address,
            reserved: [0; 2],
        })
    }

    /// `cuIpcOpenMemHandle`: where the allocation begins here. Opened again, it is there already.
    ///
    /// # Errors
    /// `INVALID_CONTEXT` if it is of this process; `INVALID_VALUE` if the handle is none (any more), or another function's.
    pub fn open_memory(&'static self, handle: &IpcHandle) -> CudaResult<u64> {
        self.check_usable()?;
        let IpcHandle { kind, secret, exporter, bytes, offset, .. } = *handle;
        if kind != IpcHandle::MEMORY || offset >= bytes {
            return Err(CudaError::INVALID_VALUE);
        }
        if exporter == self.id {
            return Err(CudaError::INVALID_CONTEXT);
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
        *known.opens.entry(address).or_default() += 1;
        Ok(address)
    }

    /// `cuIpcCloseMemHandle`, behind everything that may still use it.
    ///
    /// # Errors
    /// `INVALID_VALUE` if the address is not of [`Self::open_memory`], or was closed as often.
    pub fn close_memory(&'static self, address: u64) -> CudaResult<()> {
        self.check_usable()?;
        host_function::wait_for_all()?;
        let mut opened = self.ipc.lock();
        let is_it = |known: &&mut Opened| known.opens.contains_key(&address);
        let known = opened.by_secret.values_mut().find(is_it).ok_or(CudaError::INVALID_VALUE)?;
        if let Some(count) = known.opens.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                known.opens.remove(&address);
            }
        }
        if !known.opens.is_empty() {
            return Ok(());
        }
        let range = known.range;
        opened.by_secret.retain(|_, known| known.range != range);
        self.unmap_import(range)
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
