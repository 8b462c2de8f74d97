//! What is known of a pointer.

use super::argument::{In, Out};
use super::cuda_functions;
use crate::core::{Client, CudaResult, Location, client, contexts};
use torpor_proto::error::CudaError;
use torpor_proto::layout::AddressRange;

// CUpointer_attribute (cuda.h), with the types of their values.
const CONTEXT: u32 = 1; // CUcontext
const MEMORY_TYPE: u32 = 2; // unsigned int
const DEVICE_POINTER: u32 = 3; // CUdeviceptr
const HOST_POINTER: u32 = 4; // void *
const SYNC_MEMORY_OPERATIONS: u32 = 6; // boolean, in the size of an int: cudart reads all four bytes
const BUFFER_ID: u32 = 7; // unsigned long long
const IS_MANAGED: u32 = 8;
const DEVICE_ORDINAL: u32 = 9; // int
const IS_LEGACY_IPC_CAPABLE: u32 = 10;
const RANGE_START: u32 = 11; // CUdeviceptr
const RANGE_BYTES: u32 = 12; // size_t
const IS_MAPPED: u32 = 13;
const ALLOWED_HANDLE_TYPES: u32 = 14; // unsigned long long
const IS_GPU_DIRECT_RDMA_CAPABLE: u32 = 15;
const ACCESS_FLAGS: u32 = 16; // unsigned int: read and write
const MEMORY_POOL: u32 = 17; // CUmemoryPool

const TYPE_HOST: u32 = 1;
const TYPE_DEVICE: u32 = 2;
const READ_AND_WRITE: u32 = 3;

struct Known {
    memory_type: u32,
    device_address: u64,
    host_address: Option<u64>,
    range: AddressRange,
}

fn look_up(client: &Client, address: u64) -> CudaResult<Known> {
    let unknown = CudaError::INVALID_VALUE;
    match client.locate(address, 1) {
        Location::Device(device_address) => {
            let range = client.allocation_of(address).map_err(|_| unknown)?;
            Ok(Known { memory_type: TYPE_DEVICE, device_address, host_address: None, range })
        }
        Location::Pinned(device_address) => {
            let range = client.registered_range_of(address).or_else(|| client.pinned_allocation_of(address));
            let range = range.ok_or(unknown)?;
            Ok(Known { memory_type: TYPE_HOST, device_address, host_address: Some(address), range })
        }
        Location::Pageable(_) => Err(unknown),
    }
}

/// Writes the value of an attribute in its own type.
fn put(client: &Client, known: &Known, attribute: u32, value: Out<u8>) -> CudaResult<()> {
    let bytes: &[u8] = match attribute {
        CONTEXT => &client.primary_context().handle().addr().to_ne_bytes(),
        MEMORY_TYPE => &known.memory_type.to_ne_bytes(),
        DEVICE_POINTER => &known.device_address.to_ne_bytes(),
        HOST_POINTER => &known.host_address.ok_or(CudaError::INVALID_VALUE)?.to_ne_bytes(),
        BUFFER_ID => &known.range.address.to_ne_bytes(),
        RANGE_START => &known.range.address.to_ne_bytes(),
        RANGE_BYTES => &known.range.bytes.to_ne_bytes(),
        ALLOWED_HANDLE_TYPES | MEMORY_POOL => &0u64.to_ne_bytes(),
        ACCESS_FLAGS => &READ_AND_WRITE.to_ne_bytes(),
        DEVICE_ORDINAL | SYNC_MEMORY_OPERATIONS => &0u32.to_ne_bytes(),
        IS_MANAGED | IS_LEGACY_IPC_CAPABLE | IS_GPU_DIRECT_RDMA_CAPABLE => &0u32.to_ne_bytes(),
        IS_MAPPED => &1u32.to_ne_bytes(),
        _ => return Err(CudaError::NOT_SUPPORTED),
    };
    value.put_all(bytes.iter().copied())
}

/// What `cuPointerGetAttributes` says of a pointer that CUDA does not know (cuda.h): zeroes, and no device.
fn put_unknown(attribute: u32, value: Out<u8>) -> CudaResult<()> {
    let bytes: &[u8] = match attribute {
        CONTEXT | DEVICE_POINTER | HOST_POINTER | BUFFER_ID | RANGE_START | RANGE_BYTES
        | ALLOWED_HANDLE_TYPES | MEMORY_POOL => &[0; 8],
        DEVICE_ORDINAL => &(-2i32).to_ne_bytes(),
        MEMORY_TYPE
        | ACCESS_FLAGS
        | SYNC_MEMORY_OPERATIONS
        | IS_MANAGED
        | IS_LEGACY_IPC_CAPABLE
        | IS_GPU_DIRECT_RDMA_CAPABLE
        | IS_MAPPED => &[0; 4],
        _ => return Err(CudaError::NOT_SUPPORTED),
    };
    value.put_all(bytes.iter().copied())
}

cuda_functions! {
    /// Only the address in the current context needs one (cuda.h).
    fn cuPointerGetAttribute(value: Out<u8>, attribute: u32, address: u64) {
        let client = client()?;
        if attribute == DEVICE_POINTER {
            contexts::require()?;
        }
        put(client, &look_up(client, address)?, attribute, value)
    }

    /// No context need be current: libcudart asks from threads that have none yet, as PyTorch makes it do when a new thread
    /// pins a tensor.
    fn cuPointerGetAttributes(count: u32, attributes: In<u32>, values: In<Out<u8>>, address: u64) {
        let client = client()?;
        let (attributes, values) = (attributes.slice(count as usize)?, values.slice(count as usize)?);
        let known = look_up(client, address).ok();
        for (attribute, value) in attributes.into_iter().zip(values) {
            match &known {
                // A host pointer of device memory is null here, and an error only when asked for alone.
                Some(known) if attribute != HOST_POINTER || known.host_address.is_some() => {
                    put(client, known, attribute, value)?;
                }
                _ => put_unknown(attribute, value)?,
            }
        }
        Ok(())
    }

    /// Every copy is in stream order already; the attribute asks for no more.
    fn cuPointerSetAttribute(_value: *const u8, attribute: u32, address: u64) {
        let client = client()?;
        look_up(client, address)?;
        if attribute == SYNC_MEMORY_OPERATIONS { Ok(()) } else { Err(CudaError::INVALID_VALUE) }
    }
}
