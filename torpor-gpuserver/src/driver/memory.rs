//! Device addresses and the physical memory behind them.

use super::{Device, DriverError};
use cudarc::driver::sys;
use std::ffi::c_void;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use torpor_proto::error::CudaError;

const DESCRIPTOR: sys::CUmemAllocationHandleType =
    sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;

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
        let reservation =
            Self::near(device, address, bytes).map_err(DriverError::during("reserving device addresses"))?;
        let got = reservation.address;
        if got == address { Ok(reservation) } else { Err(DriverError::Address { wanted: address, got }) }
    }

    /// Reserves addresses wherever the driver likes.
    ///
    /// # Errors
    /// The driver's.
    pub fn anywhere(device: &Arc<Device>, bytes: u64) -> Result<Self, CudaError> {
        Self::near(device, 0, bytes)
    }

    fn near(device: &Arc<Device>, wanted: u64, bytes: u64) -> Result<Self, CudaError> {
        let (mut address, bytes) = (0, bytes as usize);
        // SAFETY: writes one address.
        CudaError::check(unsafe { (device.table().cuMemAddressReserve)(&mut address, bytes, 0, wanted, 0) })?;
        Ok(Self { device: device.clone(), address, bytes })
    }

    /// The first one.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
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
        Self::make(device, bytes, sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE)
    }

    /// The same, which other processes may be given.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn shareable(device: &Arc<Device>, bytes: u64) -> Result<Self, CudaError> {
        Self::make(device, bytes, DESCRIPTOR)
    }

    /// What another process has given, which may be another device's. It is whole even if that process ends.
    ///
    /// # Errors
    /// The driver's.
    pub fn given(device: &Arc<Device>, descriptor: &OwnedFd, bytes: u64) -> Result<Self, CudaError> {
        let number = std::ptr::without_provenance_mut::<c_void>(descriptor.as_raw_fd() as usize);
        let mut handle = 0;
        // SAFETY: writes one handle; the descriptor is a number here, and open.
        CudaError::check(unsafe {
            (device.table().cuMemImportFromShareableHandle)(&mut handle, number, DESCRIPTOR.0)
        })?;
        Ok(Self { device: device.clone(), handle, bytes: bytes as usize })
    }

    /// A descriptor of it for another process.
    ///
    /// # Errors
    /// The driver's, unless it is [shareable](Self::shareable).
    pub fn give(&self) -> Result<OwnedFd, CudaError> {
        let mut descriptor = -1_i32;
        // SAFETY: writes one descriptor, which is an integer.
        CudaError::check(unsafe {
            (self.device.table().cuMemExportToShareableHandle)(
                (&raw mut descriptor).cast(),
                self.handle,
                DESCRIPTOR.0,
                0,
            )
        })?;
        if descriptor < 0 {
            return Err(CudaError::UNKNOWN);
        }
        // SAFETY: the driver has just made it for the caller.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }

    fn make(
        device: &Arc<Device>,
        bytes: u64,
        kind: sys::CUmemAllocationHandleType,
    ) -> Result<Self, CudaError> {
        let bytes = bytes as usize;
        let properties = sys::CUmemAllocationProp {
            type_: sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
            requestedHandleTypes: kind,
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
        Self::with(physical, address, sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
    }

    /// Maps physical memory and lets the device read it; a driver that knows no such access lets it write, too.
    ///
    /// # Errors
    /// The driver's.
    pub fn to_read(physical: &PhysicalMemory, address: u64) -> Result<Self, CudaError> {
        Self::with(physical, address, sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READ)
            .or_else(|_| Self::new(physical, address))
    }

    fn with(
        physical: &PhysicalMemory,
        address: u64,
        flags: sys::CUmemAccess_flags,
    ) -> Result<Self, CudaError> {
        let access = sys::CUmemAccessDesc { location: location(&physical.device), flags };
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
