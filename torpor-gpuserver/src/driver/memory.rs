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

/// One piece of physical memory, mapped at a fixed device address inside a [`Reservation`].
#[derive(Debug)]
pub struct Segment {
    device: Arc<Device>,
    address: u64,
    bytes: usize,
    physical: u64,
    mapped: bool,
}

impl Segment {
    /// Takes physical memory, maps it and lets the device read and write it. It holds whatever was in it.
    ///
    /// # Errors
    /// The driver's; nothing is kept then.
    pub fn map(device: &Arc<Device>, address: u64, bytes: u64) -> Result<Self, CudaError> {
        let (table, bytes) = (device.table(), bytes as usize);
        let location = sys::CUmemLocation {
            type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
            id: device.ordinal,
        };
        let properties = sys::CUmemAllocationProp {
            type_: sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
            requestedHandleTypes: sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE,
            location,
            win32HandleMetaData: std::ptr::null_mut(),
            allocFlags: sys::CUmemAllocationProp_st__bindgen_ty_1 {
                compressionType: 0,
                gpuDirectRDMACapable: 0,
                usage: 0,
                reserved: [0; 4],
            },
        };
        let access = sys::CUmemAccessDesc {
            location,
            flags: sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
        };
        let mut physical = 0;
        // SAFETY: reads the properties, writes one handle.
        CudaError::check(unsafe { (table.cuMemCreate)(&mut physical, bytes, &properties, 0) })?;
        let mut segment = Self { device: device.clone(), address, bytes, physical, mapped: false };
        // SAFETY: the driver refuses addresses that are not reserved or already mapped.
        CudaError::check(unsafe { (table.cuMemMap)(address, bytes, 0, physical, 0) })?;
        segment.mapped = true;
        // SAFETY: reads one descriptor.
        CudaError::check(unsafe { (table.cuMemSetAccess)(address, bytes, &access, 1) })?;
        Ok(segment)
    }

    /// Its length.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes as u64
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let table = self.device.table();
        if self.mapped {
            // SAFETY: mapped once and unmapped once, here.
            let _ = unsafe { (table.cuMemUnmap)(self.address, self.bytes) };
        }
        // SAFETY: created once and released once, here.
        let _ = unsafe { (table.cuMemRelease)(self.physical) };
    }
}
