//! Memory pools and allocation in the order of streams.

use super::argument::{In, Out};
use super::device::ordinal;
use super::{cuda_functions, stream_functions};
use crate::core::pool::{self, Attribute, Pool, PoolKind, PoolMemory, Sharing};
use crate::core::{CudaResult, client, contexts};
use std::ffi::c_void;
use torpor_proto::error::CudaError;
use torpor_proto::layout::SEGMENT_GRANULE_BYTES;

/// `CU_MEM_ALLOCATION_TYPE_PINNED`, of a device or of the host; `…_MANAGED`
const PINNED: i32 = 1;
const MANAGED: i32 = 2;
/// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`
pub(super) const FILE_DESCRIPTOR: i32 = 1;
/// `CU_MEM_LOCATION_TYPE_NONE`, `…_DEVICE`, `…_HOST`, `…_HOST_NUMA`
const NOWHERE: i32 = 0;
const DEVICE: i32 = 1;
const HOST: i32 = 2;
const HOST_NODE: i32 = 3;
/// `CU_MEM_ACCESS_FLAGS_PROT_NONE`, `…_READWRITE`
const NO_ACCESS: i32 = 0;
const READ_AND_WRITE: i32 = 3;

/// `CUmemLocation`, `cudaMemLocation`
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Location {
    kind: i32,
    id: i32,
}

/// `CUmemPoolProps`, `cudaMemPoolProps`
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Properties {
    allocation: i32,
    handles: i32,
    location: Location,
    security: *mut c_void,
    /// 0 is the system's choice.
    most_bytes: usize,
    usage: u16,
    reserved: [u8; 54],
}

const _: () = assert!(size_of::<Properties>() == 88);

/// `CUmemAccessDesc`, `cudaMemAccessDesc`
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Access {
    location: Location,
    flags: i32,
}

/// What a pool, or a place for pools, is for.
pub(crate) type Place = (PoolMemory, u32);

impl Location {
    /// The ordinal of the device. `NOT_SUPPORTED` for anything else, `INVALID_DEVICE` for one that the program does not see.
    pub(crate) fn device(self) -> CudaResult<u32> {
        if self.kind == DEVICE { ordinal(self.id) } else { Err(CudaError::NOT_SUPPORTED) }
    }

    /// Memory of such an allocation type there. Managed memory is on the host, wherever it is wanted.
    fn place(self, allocation: i32) -> CudaResult<Place> {
        match (allocation, self.kind) {
            (PINNED, HOST | HOST_NODE) => Ok((PoolMemory::Host, 0)),
            (PINNED, _) => Ok((PoolMemory::Device, self.device()?)),
            (MANAGED, NOWHERE | HOST | HOST_NODE) => Ok((PoolMemory::Managed, 0)),
            (MANAGED, _) => self.device().map(|_| (PoolMemory::Managed, 0)),
            _ => Err(CudaError::NOT_SUPPORTED),
        }
    }
}

impl Properties {
    /// Those of the device's own pool.
    pub(crate) fn of_device() -> Self {
        Self {
            allocation: PINNED,
            handles: 0,
            location: Location { kind: DEVICE, id: 0 },
            security: std::ptr::null_mut(),
            most_bytes: 0,
            usage: 0,
            reserved: [0; 54],
        }
    }

    /// What the pool is for. `NOT_SUPPORTED` for what is not offered, `INVALID_DEVICE` for a device that the program does not see,
    /// `INVALID_VALUE` for memory of the host that other processes are to have (cuda.h).
    pub(crate) fn check(self) -> CudaResult<Place> {
        let place = self.location.place(self.allocation)?;
        match (place.0, self.handles) {
            (_, 0) | (PoolMemory::Device, FILE_DESCRIPTOR) => Ok(place),
            (PoolMemory::Host, _) if self.location.kind == HOST => Err(CudaError::INVALID_VALUE),
            _ => Err(CudaError::NOT_SUPPORTED),
        }
    }

    /// As [`Self::check`], of what a graph allocates, which is a device's and its own process's alone.
    pub(crate) fn check_for_graph(self) -> CudaResult<()> {
        let (memory, _) = self.check()?;
        let is_offered = memory == PoolMemory::Device && self.handles == 0;
        if is_offered { Ok(()) } else { Err(CudaError::NOT_SUPPORTED) }
    }
}

/// A new pool. A limit is of whole granules.
pub(crate) fn create(properties: Properties) -> CudaResult<&'static Pool> {
    let (memory, device) = properties.check()?;
    let limit = (properties.most_bytes as u64).checked_next_multiple_of(SEGMENT_GRANULE_BYTES);
    let is_shared = properties.handles == FILE_DESCRIPTOR;
    let sharing = if is_shared { Sharing::exportable() } else { Sharing::None };
    Pool::create(device, PoolKind { memory, limit_bytes: limit.unwrap_or(0), sharing })
}

/// What a C caller is told of an attribute: a C int for what is a yes or no, else 64 bits.
pub(crate) fn tell(pool: *mut c_void, code: i32, value: Out<c_void>) -> CudaResult<()> {
    let (pool, attribute) = (Pool::find(pool)?, Attribute::of(code)?);
    let found = pool.attribute(attribute);
    match attribute {
        Attribute::Reuse(_) => value.cast::<i32>().put(i32::from(found != 0)),
        _ => value.cast::<u64>().put(found),
    }
}

/// The other direction.
pub(crate) fn set(pool: *mut c_void, code: i32, value: Out<c_void>) -> CudaResult<()> {
    let (pool, attribute) = (Pool::find(pool)?, Attribute::of(code)?);
    let wanted = match attribute {
        Attribute::Reuse(_) => u64::from(value.cast::<i32>().get()? != 0),
        _ => value.cast::<u64>().get()?,
    };
    pool.set_attribute(attribute, wanted)
}

/// All devices that a program sees may read and write its pools, always; a pool's own must not be forbidden to (cuda.h).
pub(crate) fn allow(pool: *mut c_void, list: In<Access>, count: usize) -> CudaResult<()> {
    let pool = Pool::find(pool)?;
    let own = (pool.memory() == PoolMemory::Device).then(|| pool.device());
    for Access { location, flags } in list.slice(count)? {
        let device = location.device()?;
        match flags {
            READ_AND_WRITE => {}
            NO_ACCESS if Some(device) == own => return Err(CudaError::INVALID_DEVICE),
            NO_ACCESS => {}
            _ => return Err(CudaError::INVALID_VALUE),
        }
    }
    Ok(())
}

/// `Access::flags` of a device.
pub(crate) fn access(pool: *mut c_void, location: In<Location>) -> CudaResult<i32> {
    let (pool, location) = (Pool::find(pool)?, location.get()?);
    if location.kind != HOST || pool.memory() == PoolMemory::Device {
        location.device()?;
    }
    Ok(READ_AND_WRITE)
}

/// Makes a pool the one that a device's allocations come from, or those of other memory.
///
/// # Errors
/// `INVALID_DEVICE` for another device's pool; `INVALID_VALUE` for another process's, or one of other memory.
pub(crate) fn choose(pool: *mut c_void, (memory, device): Place) -> CudaResult<()> {
    let pool = Pool::find(pool)?;
    if pool.memory() != memory || matches!(pool.sharing(), Sharing::Imported(_)) {
        return Err(CudaError::INVALID_VALUE);
    }
    if pool.device() != device {
        return Err(CudaError::INVALID_DEVICE);
    }
    pool.choose_for(memory, device);
    Ok(())
}

/// What those functions that CUDA 13 added say which pool they are about.
pub(crate) fn place(location: In<Location>, allocation: i32) -> CudaResult<Place> {
    location.get()?.place(allocation)
}

cuda_functions! {
    fn cuMemPoolCreate(pool: Out<*mut c_void>, properties: In<Properties>) {
        client()?;
        if pool.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        pool.put(create(properties.get()?)?.handle())
    }

    fn cuMemPoolDestroy(pool: *mut c_void) {
        client()?;
        Pool::find(pool)?.destroy()
    }

    fn cuMemPoolTrimTo(pool: *mut c_void, keep_bytes: usize) {
        client()?;
        Pool::find(pool)?.trim_to(keep_bytes as u64)
    }

    fn cuMemPoolGetAttribute(pool: *mut c_void, attribute: i32, value: Out<c_void>) {
        client()?;
        tell(pool, attribute, value)
    }

    fn cuMemPoolSetAttribute(pool: *mut c_void, attribute: i32, value: Out<c_void>) {
        client()?;
        set(pool, attribute, value)
    }

    fn cuMemPoolSetAccess(pool: *mut c_void, list: In<Access>, count: usize) {
        client()?;
        allow(pool, list, count)
    }

    fn cuMemPoolGetAccess(flags: Out<i32>, pool: *mut c_void, location: In<Location>) {
        client()?;
        flags.put(access(pool, location)?)
    }

    fn cuDeviceGetDefaultMemPool(pool: Out<*mut c_void>, number: i32) {
        pool.put(Pool::of_device(ordinal(number)?)?.handle())
    }

    fn cuDeviceGetMemPool(pool: Out<*mut c_void>, number: i32) {
        pool.put(Pool::current_of(ordinal(number)?)?.handle())
    }

    fn cuDeviceSetMemPool(number: i32, pool: *mut c_void) {
        choose(pool, (PoolMemory::Device, ordinal(number)?))
    }

    fn cuMemGetDefaultMemPool(pool: Out<*mut c_void>, location: In<Location>, allocation: i32) {
        client()?;
        let (memory, device) = place(location, allocation)?;
        pool.put(Pool::default_of(memory, device)?.handle())
    }

    fn cuMemGetMemPool(pool: Out<*mut c_void>, location: In<Location>, allocation: i32) {
        client()?;
        let (memory, device) = place(location, allocation)?;
        pool.put(Pool::chosen_of(memory, device)?.handle())
    }

    fn cuMemSetMemPool(location: In<Location>, allocation: i32, pool: *mut c_void) {
        client()?;
        choose(pool, place(location, allocation)?)
    }
}

stream_functions! {
    fn cuMemAllocAsync / cuMemAllocAsync_ptsz(address: Out<u64>, bytes: usize, @ stream) {
        client()?;
        contexts::require()?;
        if address.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        let stream = stream.find()?;
        address.put(Pool::current_of(stream.device())?.allocate(bytes as u64, stream)?)
    }

    fn cuMemAllocFromPoolAsync / cuMemAllocFromPoolAsync_ptsz
        (address: Out<u64>, bytes: usize, pool: *mut c_void, @ stream)
    {
        client()?;
        contexts::require()?;
        if address.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        address.put(Pool::find(pool)?.allocate(bytes as u64, stream.find()?)?)
    }

    fn cuMemFreeAsync / cuMemFreeAsync_ptsz(address: u64, @ stream) {
        client()?;
        pool::free_in_order(address, stream.find()?)
    }
}
