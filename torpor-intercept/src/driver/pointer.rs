//! What is known of a pointer.

use super::argument::{In, Out};
use super::cuda_functions;
use super::pool::FILE_DESCRIPTOR;
use crate::core::pool::{Pool, Sharing};
use crate::core::{Client, Context, CudaResult, Location, client, contexts};
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
const MAPPING_BYTES: u32 = 18; // size_t
const MAPPING_START: u32 = 19; // CUdeviceptr
const MEMORY_BLOCK_ID: u32 = 20; // unsigned long long
const IS_DECOMPRESSION_CAPABLE: u32 = 21;

const TYPE_HOST: u32 = 1;
const TYPE_DEVICE: u32 = 2;
const READ_AND_WRITE: u32 = 3;

struct Known {
    memory_type: u32,
    /// None for memory of the host, which may have to be shown to the device first.
    device_address: Option<u64>,
    host_address: Option<u64>,
    range: AddressRange,
    is_managed: bool,
    /// The ordinal of the device that it is of.
    device: u32,
}

impl Known {
    /// The pool that it is a block of. One of another process is known where it begins.
    fn pool(&self, client: &Client) -> Option<&'static Pool> {
        client.pool_of(self.range.address).or_else(|| client.pool_of(self.device_address?))
    }

    /// As what it can be given to other processes.
    fn handle_types(&self, client: &Client) -> u64 {
        match self.pool(client).map(Pool::sharing) {
            Some(Sharing::Exportable { .. }) => u64::from(FILE_DESCRIPTOR.cast_unsigned()),
            _ => client.allowed_handle_types(self.range.address),
        }
    }
}

fn look_up(client: &Client, address: u64) -> CudaResult<Known> {
    let unknown = CudaError::INVALID_VALUE;
    if let Location::Device(address) = client.locate(address, 1) {
        let range = client.allocation_of(address).map_err(|_| unknown)?;
        let device_address = Some(address);
        let (host_address, is_managed) = (None, false);
        let (memory_type, device) = (TYPE_DEVICE, client.owner_of(range));
        return Ok(Known { memory_type, device_address, host_address, range, is_managed, device });
    }
    if let Some(range) = client.managed_range_of(address) {
        let (device_address, host_address) = (Some(address), Some(address));
        let (memory_type, device) = (TYPE_DEVICE, client.owner_of(range));
        return Ok(Known { memory_type, device_address, host_address, range, is_managed: true, device });
    }
    let alias = client.registered_with_alias(address);
    let own_address = alias.map_or(address, |(own_address, _)| own_address);
    let own = client.registered_range_of(own_address).or_else(|| client.pinned_allocation_of(address));
    let own = own.ok_or(unknown)?;
    let range = alias.map_or(own, |(_, range)| range);
    let (device_address, host_address) = (None, Some(own_address));
    let (memory_type, device) = (TYPE_HOST, client.owner_of(own));
    Ok(Known { memory_type, device_address, host_address, range, is_managed: false, device })
}

impl Known {
    fn device_address(&self, client: &Client) -> CudaResult<u64> {
        let of_host = || client.device_address_of_host(self.host_address.ok_or(CudaError::INVALID_VALUE)?);
        self.device_address.map_or_else(of_host, Ok)
    }
}

/// Writes the value of an attribute in its own type.
fn put(client: &Client, known: &Known, attribute: u32, value: Out<u8>) -> CudaResult<()> {
    let bytes: &[u8] = match attribute {
        CONTEXT => &Context::primary(known.device).handle().addr().to_ne_bytes(),
        MEMORY_TYPE => &known.memory_type.to_ne_bytes(),
        DEVICE_POINTER => &known.device_address(client)?.to_ne_bytes(),
        HOST_POINTER => &known.host_address.ok_or(CudaError::INVALID_VALUE)?.to_ne_bytes(),
        BUFFER_ID | MEMORY_BLOCK_ID => &known.range.address.to_ne_bytes(),
        RANGE_START | MAPPING_START => &known.range.address.to_ne_bytes(),
        RANGE_BYTES | MAPPING_BYTES => &known.range.bytes.to_ne_bytes(),
        ALLOWED_HANDLE_TYPES => &known.handle_types(client).to_ne_bytes(),
        MEMORY_POOL => &known.pool(client).map_or(0, |pool| pool.handle().addr()).to_ne_bytes(),
        ACCESS_FLAGS => &READ_AND_WRITE.to_ne_bytes(),
        SYNC_MEMORY_OPERATIONS => &u32::from(client.synchronizes_always(known.range.address)).to_ne_bytes(),
        IS_MANAGED => &u32::from(known.is_managed).to_ne_bytes(),
        IS_LEGACY_IPC_CAPABLE => {
            &u32::from(known.memory_type == TYPE_DEVICE && client.may_export(known.range.address))
                .to_ne_bytes()
        }
        DEVICE_ORDINAL => &known.device.to_ne_bytes(),
        IS_GPU_DIRECT_RDMA_CAPABLE | IS_DECOMPRESSION_CAPABLE => &0u32.to_ne_bytes(),
        IS_MAPPED => &1u32.to_ne_bytes(),
        _ => return Err(CudaError::INVALID_VALUE),
    };
    value.put_all(bytes.iter().copied())
}

/// What `cuPointerGetAttributes` says of a pointer that CUDA does not know (cuda.h): zeroes, and no device.
fn put_unknown(attribute: u32, value: Out<u8>) -> CudaResult<()> {
    let bytes: &[u8] = match attribute {
        CONTEXT | DEVICE_POINTER | HOST_POINTER | BUFFER_ID | RANGE_START | RANGE_BYTES | MAPPING_BYTES
        | MAPPING_START | MEMORY_BLOCK_ID | ALLOWED_HANDLE_TYPES | MEMORY_POOL => &[0; 8],
        DEVICE_ORDINAL => &(-2i32).to_ne_bytes(),
        MEMORY_TYPE
        | ACCESS_FLAGS
        | SYNC_MEMORY_OPERATIONS
        | IS_MANAGED
        | IS_LEGACY_IPC_CAPABLE
        | IS_GPU_DIRECT_RDMA_CAPABLE
        | IS_DECOMPRESSION_CAPABLE
        | IS_MAPPED => &[0; 4],
        _ => return Err(CudaError::INVALID_VALUE),
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
            // An address that there is not is null here, and an error only when asked for alone.
            let is_there = |known: &Known| match attribute {
                HOST_POINTER => known.host_address.is_some(),
                DEVICE_POINTER => known.device_address(client).is_ok(),
                _ => true,
            };
            match &known {
                Some(known) if is_there(known) => put(client, known, attribute, value)?,
                _ => put_unknown(attribute, value)?,
            }
        }
        Ok(())
    }

    /// Synchronous copies always are, here: the attribute is only remembered.
    fn cuPointerSetAttribute(value: In<u32>, attribute: u32, address: u64) {
        let client = client()?;
        let known = look_up(client, address)?;
        if attribute != SYNC_MEMORY_OPERATIONS || known.memory_type != TYPE_DEVICE {
            return Err(CudaError::INVALID_VALUE);
        }
        client.set_synchronizes_always(known.range.address, value.get()? != 0);
        Ok(())
    }
}
