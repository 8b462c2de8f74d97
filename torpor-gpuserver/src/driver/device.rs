//! The driver library, and one device of it with its primary context.

use super::table::Table;
use super::{DriverError, Handle};
use libloading::Library;
use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use torpor_proto::control::client::Device as Description;
use torpor_proto::error::CudaError;

/// Past the last `CUdevice_attribute` of CUDA 13.0, because drivers may know more.
const LAST_ATTRIBUTE: u32 = 255;

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR`.
const CAPABILITY_MAJOR: u32 = 75;
const CAPABILITY_MINOR: u32 = 76;

/// `CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT`, `CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR`
const MULTIPROCESSORS: u32 = 16;
const THREADS_OF_MULTIPROCESSOR: u32 = 39;

/// Past the last `CUlimit` of CUDA 13.0 (`CU_LIMIT_CIG_SHMEM_FALLBACK_ENABLED`, 9), because drivers may know more. cuBLAS asks
/// for the last ones before every product and refuses to work without an answer.
const LAST_LIMIT: u32 = 31;

/// A loaded `libcuda.so.1`.
pub struct Driver {
    pub(super) table: Table,
    /// Keeps the code behind the table mapped.
    _library: Library,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Driver")
    }
}

impl Driver {
    /// Opens the library at `path` and initialises it.
    ///
    /// # Errors
    /// [`DriverError`]; a missing function is named.
    pub fn load(path: &Path) -> Result<Arc<Self>, DriverError> {
        // SAFETY: the operator names the library; its initialisers are those of a CUDA driver or of its simulation.
        let library = unsafe { Library::new(path) }
            .map_err(|source| DriverError::Load { path: path.to_owned(), source })?;
        let table = Table::load(&library, path)?;
        // SAFETY: takes a number; 0 is the only value that cuda.h allows.
        CudaError::check(unsafe { (table.cuInit)(0) }).map_err(DriverError::during("starting the driver"))?;
        Ok(Arc::new(Self { table, _library: library }))
    }

    /// What tells it from other drivers: its file, by name, length and time of its last change.
    #[must_use]
    pub fn identity(&self) -> String {
        // SAFETY: the structure is of integers and pointers, for which zero is a value.
        let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
        // SAFETY: the address is a function's of the library, which stays loaded; writes one structure.
        let known = unsafe { libc::dladdr(self.table.cuInit as *const _, &mut found) };
        if known == 0 || found.dli_fname.is_null() {
            return String::new();
        }
        // SAFETY: the dynamic linker's text, which stays as long as the library does.
        let file = PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(found.dli_fname) }.to_bytes()));
        let file = fs::canonicalize(&file).unwrap_or(file);
        let about = fs::metadata(&file).map(|about| (about.len(), about.mtime(), about.mtime_nsec()));
        format!("{} {about:?}", file.display())
    }

    /// `cuDriverGetVersion`.
    ///
    /// # Errors
    /// The driver's.
    pub fn version(&self) -> Result<i32, CudaError> {
        let mut version = 0;
        // SAFETY: writes one integer.
        CudaError::check(unsafe { (self.table.cuDriverGetVersion)(&mut version) })?;
        Ok(version)
    }
}

/// One GPU, its primary context retained.
#[derive(Debug)]
pub struct Device {
    driver: Arc<Driver>,
    pub(super) ordinal: i32,
    context: Handle,
}

impl Device {
    /// Retains the primary context of a device and makes it the calling thread's current one.
    ///
    /// # Errors
    /// [`DriverError::Cuda`].
    pub fn open(driver: Arc<Driver>, ordinal: u32) -> Result<Arc<Self>, DriverError> {
        let wanted = i32::try_from(ordinal).unwrap_or(i32::MAX);
        let (mut ordinal, mut context) = (0, 0);
        // SAFETY: writes one integer.
        CudaError::check(unsafe { (driver.table.cuDeviceGet)(&mut ordinal, wanted) })
            .map_err(DriverError::during("finding the device"))?;
        // SAFETY: writes one handle.
        CudaError::check(unsafe { (driver.table.cuDevicePrimaryCtxRetain)(&mut context, ordinal) })
            .map_err(DriverError::during("making the device's context"))?;
        let device = Self { driver, ordinal, context };
        device.make_current().map_err(DriverError::during("entering the device's context"))?;
        Ok(Arc::new(device))
    }

    pub(super) fn table(&self) -> &Table {
        &self.driver.table
    }

    /// The primary context's handle.
    pub(super) fn context(&self) -> Handle {
        self.context
    }

    /// Makes the context the calling thread's current one. Every thread that uses the device does this first.
    ///
    /// # Errors
    /// The driver's.
    pub fn make_current(&self) -> Result<(), CudaError> {
        // SAFETY: the context is retained as long as self lives.
        CudaError::check(unsafe { (self.table().cuCtxSetCurrent)(self.context) })
    }

    /// Waits for all work of the context: only where that has failed already, and to hear of it what the driver has to say.
    ///
    /// # Errors
    /// The context's.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        // SAFETY: takes nothing.
        CudaError::check(unsafe { (self.table().cuCtxSynchronize)() })
    }

    /// Free and total bytes of device memory.
    ///
    /// # Errors
    /// The driver's.
    pub fn memory_info(&self) -> Result<(u64, u64), CudaError> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two sizes.
        CudaError::check(unsafe { (self.table().cuMemGetInfo_v2)(&mut free, &mut total) })?;
        Ok((free as u64, total as u64))
    }

    /// What a program can ask of the device without using it.
    ///
    /// # Errors
    /// The driver's, unless it is about a single attribute or limit: those it refuses are left out.
    pub fn describe(&self) -> Result<Description, CudaError> {
        let table = self.table();
        let mut name = [0; 256];
        // SAFETY: writes at most the given number of characters.
        CudaError::check(unsafe {
            (table.cuDeviceGetName)(name.as_mut_ptr(), name.len() as i32, self.ordinal)
        })?;
        let name = CStr::from_bytes_until_nul(bytemuck::cast_slice(&name)).unwrap_or_default();
        let mut uuid = [0; 16];
        // SAFETY: writes 16 bytes.
        CudaError::check(unsafe { (table.cuDeviceGetUuid_v2)(&mut uuid, self.ordinal) })?;
        let mut total = 0;
        // SAFETY: writes one size.
        CudaError::check(unsafe { (table.cuDeviceTotalMem_v2)(&mut total, self.ordinal) })?;
        let (tpc_clusters, tpc_places) = self.tpc_layout().unwrap_or_default();
        let (mut least, mut greatest) = (0, 0);
        // SAFETY: writes two integers.
        CudaError::check(unsafe { (table.cuCtxGetStreamPriorityRange)(&mut least, &mut greatest) })?;
        Ok(Description {
            name: name.to_string_lossy().into_owned(),
            uuid: uuid.to_vec(),
            total_memory_bytes: total as u64,
            driver_version: self.driver.version()?,
            attributes: self.attributes(),
            limits: self.limits(),
            least_stream_priority: least,
            greatest_stream_priority: greatest,
            tpc_clusters,
            tpc_places,
        })
    }

    /// The compute capability: 90 for 9.0.
    ///
    /// # Errors
    /// The driver's.
    pub fn sm(&self) -> Result<u32, CudaError> {
        Ok(self.attribute(CAPABILITY_MAJOR)? * 10 + self.attribute(CAPABILITY_MINOR)?)
    }

    /// Threads that the GPU can run at once.
    ///
    /// # Errors
    /// The driver's.
    pub fn resident_threads(&self) -> Result<u64, CudaError> {
        Ok(u64::from(self.attribute(MULTIPROCESSORS)?)
            * u64::from(self.attribute(THREADS_OF_MULTIPROCESSOR)?))
    }

    /// Whether another device, by its number, reaches this one's memory.
    ///
    /// # Errors
    /// The driver's.
    pub fn is_reached_by(&self, other: u32) -> Result<bool, CudaError> {
        let other = i32::try_from(other).map_err(|_| CudaError::INVALID_VALUE)?;
        let mut answer = 0;
        // SAFETY: writes one integer; the driver refuses numbers it does not know.
        CudaError::check(unsafe { (self.table().cuDeviceCanAccessPeer)(&mut answer, other, self.ordinal) })?;
        Ok(answer != 0)
    }

    /// A `CUlimit` of the context.
    ///
    /// # Errors
    /// `CUDA_ERROR_UNSUPPORTED_LIMIT`, or the driver's.
    pub fn context_limit(&self, limit: u32) -> Result<u64, CudaError> {
        let mut value = 0;
        // SAFETY: writes one size; the driver refuses numbers it does not know.
        CudaError::check(unsafe { (self.table().cuCtxGetLimit)(&mut value, limit) })?;
        Ok(value as u64)
    }

    /// Sets a `CUlimit` of the context.
    ///
    /// # Errors
    /// The driver's.
    pub fn set_context_limit(&self, limit: u32, value: u64) -> Result<(), CudaError> {
        // SAFETY: takes numbers alone.
        CudaError::check(unsafe { (self.table().cuCtxSetLimit)(limit, value as usize) })
    }

    fn attribute(&self, number: u32) -> Result<u32, CudaError> {
        let mut value = 0;
        // SAFETY: writes one integer.
        CudaError::check(unsafe { (self.table().cuDeviceGetAttribute)(&mut value, number, self.ordinal) })?;
        u32::try_from(value).map_err(|_| CudaError::UNKNOWN)
    }

    fn attributes(&self) -> HashMap<i32, i32> {
        let attribute = |number: u32| {
            let mut value = 0;
            // SAFETY: writes one integer; the driver refuses numbers it does not know.
            let status = unsafe { (self.table().cuDeviceGetAttribute)(&mut value, number, self.ordinal) };
            (status == 0).then_some((number as i32, value))
        };
        (1..=LAST_ATTRIBUTE).filter_map(attribute).collect()
    }

    fn limits(&self) -> HashMap<i32, u64> {
        let limit = |number: u32| Some((number as i32, self.context_limit(number).ok()?));
        (0..=LAST_LIMIT).filter_map(limit).collect()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: gives back what `open` retained; everything made in the context holds this value, so is gone.
        let _ = unsafe { (self.table().cuDevicePrimaryCtxRelease_v2)(self.ordinal) };
    }
}
