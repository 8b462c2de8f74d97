//! Device addresses and the physical memory behind them.

use super::{Device, DriverError};
use cudarc::driver::sys;
use std::sync::Arc;
use torpor_proto::error::CudaError;

/// Device addresses kept for this process.
#[derive(Debug)]
pub struct Reservation {
    device: Arc<Device>,
    address: u64,
    bytes: usize,
}

impl Reservation {
    /// Reserves exactly these addresses.
    ///
    /// # Errors
    /// The driver's, or [`DriverError::Address`] if it gave others.
    pub fn exactly(device: &Arc<Device>, address: u64, bytes: u64) -> Result<Self, DriverError> {
        let mut got = 0;
        let bytes = bytes as usize;
        // SAFETY: writes one address.
        CudaError::check(unsafe { (device.table().cuMemAddressReserve)(&mut got, bytes, 0, address, 0) })
            .map_err(DriverError::during("reserving device addresses"))?;
        let reservation = Self { device: device.clone(), address: got, bytes };
        if got == address { Ok(reservation) } else { Err(DriverError::Address { wanted: address, got }) }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: freed once, here; segments inside are gone by then or the driver refuses.
        let _ = unsafe { (self.device.table().cuMemAddressFree)(self.address, self.bytes) };
    }
}

/// A piece of physical device memory, mapped nowhere. It holds whatever was in it.
#[derive(Debug)]
pub struct PhysicalMemory {
    device: Arc<Device>,
    handle: u64,
    bytes: usize,
}

impl PhysicalMemory {
    /// Takes physical memory from the device.
    ///
    /// # Errors
    /// The driver's; `CUDA_ERROR_OUT_OF_MEMORY` if there is too little left.
    pub fn new(device: &Arc<Device>, bytes: u64) -> Result<Self, CudaError> {
        let bytes = bytes as usize;
        let properties = sys::CUmemAllocationProp {
            type_: sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
            requestedHandleTypes: sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE,
            location: location(device),
            win32HandleMetaData: std::ptr::null_mut(),
            allocFlags: sys::CUmemAllocationProp_st__bindgen_ty_1 {
                compressionType: 0,
                gpuDirectRDMACapable: 0,
                usage: 0,
                reserved: [0; 4],
            },
        };
        let mut handle = 0;
        // SAFETY: reads the properties, writes one handle.
        CudaError::check(unsafe { (device.table().cuMemCreate)(&mut handle, bytes, &properties, 0) })?;
        Ok(Self { device: device.clone(), handle, bytes })
    }

    /// Its length.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes as u64
    }
}

impl Drop for PhysicalMemory {
    fn drop(&mut self) {
        // SAFETY: created once and released once, here.
        let _ = unsafe { (self.device.table().cuMemRelease)(self.handle) };
    }
}

/// Physical memory at a fixed device address inside a [`Reservation`]. Whoever owns the memory unmaps it before anybody else
/// gets it.
#[derive(Debug)]
pub struct Mapping {
    device: Arc<Device>,
    address: u64,
    bytes: usize,
    is_mapped: bool,
}

impl Mapping {
    /// Maps physical memory and lets the device read and write it.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(physical: &PhysicalMemory, address: u64) -> Result<Self, CudaError> {
        let access = sys::CUmemAccessDesc {
            location: location(&physical.device),
            flags: sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
        };
        let (device, bytes) = (physical.device.clone(), physical.bytes);
        // SAFETY: the driver refuses addresses that are not reserved or already mapped.
        CudaError::check(unsafe { (device.table().cuMemMap)(address, bytes, 0, physical.handle, 0) })?;
        let mapping = Self { device, address, bytes, is_mapped: true };
        // SAFETY: reads one descriptor.
        CudaError::check(unsafe { (mapping.device.table().cuMemSetAccess)(address, bytes, &access, 1) })?;
        Ok(mapping)
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Takes the memory away from its address. The device must have done with it.
    ///
    /// # Errors
    /// The driver's: the memory is still there then, and must be nobody else's.
    pub fn unmap(mut self) -> Result<(), CudaError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), CudaError> {
        if !std::mem::take(&mut self.is_mapped) {
            return Ok(());
        }
        // SAFETY: mapped once and unmapped once, here.
        CudaError::check(unsafe { (self.device.table().cuMemUnmap)(self.address, self.bytes) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn location(device: &Device) -> sys::CUmemLocation {
    sys::CUmemLocation { type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE, id: device.ordinal }
}
