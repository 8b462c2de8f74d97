//! Virtual memory management.

use super::argument::{In, Out};
use super::cuda_functions;
use super::device::device;
use crate::core::{Access, CudaResult, ObjectProperties, client};
use torpor_proto::error::CudaError;
use torpor_proto::layout::{AddressRange, SEGMENT_GRANULE_BYTES};

/// `CU_MEM_ALLOCATION_TYPE_PINNED`, the only type of objects.
const PINNED: u32 = 1;

/// `CU_MEM_LOCATION_TYPE_DEVICE`
const ON_DEVICE: u32 = 1;

/// `CU_MEM_LOCATION_TYPE_HOST`, after which come nodes of the host.
const ON_HOST: u32 = 2;

/// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`
const FILE_DESCRIPTOR: u32 = 1;

/// `CU_MEM_ACCESS_FLAGS_PROT_NONE`, `…_READ`, `…_READWRITE`.
const ACCESSES: [u32; 3] = [0, 1, 3];

/// `CUmemLocation`
#[derive(Clone, Copy)]
#[repr(C)]
struct Location {
    kind: u32,
    id: i32,
}

/// `CUmemAccessDesc`
#[derive(Clone, Copy)]
#[repr(C)]
struct AccessDescription {
    location: Location,
    flags: u32,
}

/// Words of `CUmemAllocationProp`: type, handle types, location (2), `win32HandleMetaData` (2), `allocFlags` (2).
type Properties = In<ObjectProperties>;

/// # Errors
/// `INVALID_DEVICE` for a device that the program does not see; `NOT_SUPPORTED` for memory that is not a device's.
fn check_location(kind: u32, id: i32) -> CudaResult<()> {
    match (kind, id) {
        (ON_DEVICE, id) => device(id).map(drop),
        (0, _) => Err(CudaError::INVALID_VALUE),
        _ => Err(CudaError::NOT_SUPPORTED),
    }
}

fn check_properties(properties: &ObjectProperties) -> CudaResult<()> {
    let [kind, handles, location, id, ..] = *properties;
    if kind != PINNED {
        return Err(CudaError::INVALID_VALUE);
    }
    check_location(location, id.cast_signed())?;
    if handles & !FILE_DESCRIPTOR != 0 { Err(CudaError::NOT_SUPPORTED) } else { Ok(()) }
}

cuda_functions! {
    fn cuMemAddressReserve(address: Out<u64>, bytes: usize, alignment: usize, wanted: u64, flags: u64) {
        let client = client()?;
        if address.is_null() || flags != 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        address.put(client.reserve_addresses(bytes as u64, alignment as u64, wanted)?)
    }

    fn cuMemAddressFree(address: u64, bytes: usize) {
        client()?.free_addresses(address, bytes as u64)
    }

    fn cuMemGetAllocationGranularity(granularity: Out<usize>, properties: Properties, option: u32) {
        client()?;
        let properties = properties.get()?;
        // NCCL asks, and only then finds that no memory of the host is made.
        match properties[2] {
            ON_HOST.. => {}
            _ => check_properties(&properties)?,
        }
        // CU_MEM_ALLOC_GRANULARITY_MINIMUM, …_RECOMMENDED
        if option > 1 {
            return Err(CudaError::INVALID_VALUE);
        }
        granularity.put(SEGMENT_GRANULE_BYTES as usize)
    }

    fn cuMemCreate(handle: Out<u64>, bytes: usize, properties: Properties, flags: u64) {
        let (client, properties) = (client()?, properties.get()?);
        check_properties(&properties)?;
        if handle.is_null() || flags != 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        handle.put(client.create_object(bytes as u64, properties)?)
    }

    fn cuMemRelease(handle: u64) {
        client()?.release_object(handle)
    }

    fn cuMemGetAllocationPropertiesFromHandle(properties: Out<ObjectProperties>, handle: u64) {
        properties.put(client()?.object_properties(handle)?)
    }

    fn cuMemRetainAllocationHandle(handle: Out<u64>, address: u64) {
        let client = client()?;
        if handle.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        handle.put(client.retain_object(address)?)
    }

    /// The offset must be zero (cuda.h).
    fn cuMemMap(address: u64, bytes: usize, offset: usize, handle: u64, flags: u64) {
        let client = client()?;
        if offset != 0 || flags != 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        client.map_object(address, bytes as u64, handle)
    }

    fn cuMemUnmap(address: u64, bytes: usize) {
        client()?.unmap_objects(AddressRange { address, bytes: bytes as u64 })
    }

    fn cuMemSetAccess(address: u64, bytes: usize, descriptions: In<AccessDescription>, count: usize) {
        let client = client()?;
        if count == 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        let range = AddressRange { address, bytes: bytes as u64 };
        for AccessDescription { location, flags } in descriptions.slice(count)? {
            check_location(location.kind, location.id)?;
            if !ACCESSES.contains(&flags) {
                return Err(CudaError::INVALID_VALUE);
            }
            client.set_access(range, Access(flags.into()))?;
        }
        Ok(())
    }

    fn cuMemGetAccess(flags: Out<u64>, location: In<Location>, address: u64) {
        let (client, location) = (client()?, location.get()?);
        check_location(location.kind, location.id)?;
        flags.put(client.access(address)?.0)
    }

    fn cuMemExportToShareableHandle(shareable: Out<i32>, handle: u64, handle_type: u32, flags: u64) {
        let client = client()?;
        let [_, handles, ..] = client.object_properties(handle)?;
        if shareable.is_null() || flags != 0 || handle_type != FILE_DESCRIPTOR || handles & handle_type == 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        shareable.put(client.export_object(handle)?)
    }

    /// The descriptor comes as the pointer's value (cuda.h).
    fn cuMemImportFromShareableHandle(handle: Out<u64>, shareable: usize, handle_type: u32) {
        let client = client()?;
        if handle.is_null() || handle_type != FILE_DESCRIPTOR {
            return Err(CudaError::INVALID_VALUE);
        }
        let descriptor = i32::try_from(shareable).map_err(|_| CudaError::INVALID_VALUE)?;
        handle.put(client.import_object(descriptor)?)
    }
}
