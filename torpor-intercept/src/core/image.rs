//! Images (modules, libraries): known to the node by the hash of their bytes, sent at most once.

use super::compile::is_source;
use super::handle::Table;
use super::kernel::Kernel;
use super::stream::host_function;
use super::twins::Twins;
use super::{Client, CudaResult, client, devices};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use torpor_proto::command::{ImageGlobal, ImageKernels, ImageLoad, ImageUnload, ImageUpload};
use torpor_proto::error::CudaError;
use torpor_proto::image::{Image as Bytes, ImageError, ImageKind, measure, ptx};
use torpor_proto::layout::AddressRange;

/// A code module of the program. Serves as `CUmodule` and as `CUlibrary`.
pub struct Image {
    pub(super) number: u32,
    contents: Mutex<Contents>,
}

/// Kernels and globals keep for the life of the image what was asked once.
#[derive(Default)]
pub(super) struct Contents {
    source: Option<Source>,
    is_loaded: bool,
    /// The node has to make the code for its GPU of it.
    pub(super) is_source: bool,
    /// The ordinal of the device that was current when it was loaded.
    pub(super) device: u32,
    /// BLAKE3 and length of what was loaded, once it is.
    pub(super) identity: Option<Identity>,
    /// What other devices have of it.
    pub(super) twins: Twins<Image>,
    /// All devices have it together.
    pub(super) is_one_for_all: bool,
    kernels: HashMap<CString, &'static Kernel>,
    globals: HashMap<CString, AddressRange>,
}

/// Bytes that stay where they are until the image is loaded.
struct Source(Bytes<'static>);

/// By which the node knows an image.
type Identity = ([u64; 4], u64);

pub(super) static IMAGES: Table<Image> = Table::new(1 << 16);

/// What the client knows of all its images.
#[derive(Default)]
pub(super) struct Images {
    globals: RwLock<Vec<AddressRange>>,
}

impl Images {
    pub(super) fn is_global(&self, address: u64) -> bool {
        self.global_of(address).is_some()
    }

    pub(super) fn global_of(&self, address: u64) -> Option<AddressRange> {
        let globals = self.globals.read().unwrap_or_else(PoisonError::into_inner);
        globals.iter().find(|global| global.contains(address, 1)).copied()
    }
}

impl Contents {
    fn loaded(device: u32, identity: Identity) -> Self {
        Self { is_loaded: true, device, identity: Some(identity), ..Self::default() }
    }
}

impl Image {
    /// Takes an image by a bare pointer, as `cuModuleLoadData` and `cuLibraryLoadData` do.
    ///
    /// With `is_preserved`, its bytes stay where they are and are not looked at before the first question about them.
    ///
    /// # Errors
    /// `INVALID_IMAGE` for what is no image, `OUT_OF_MEMORY`, or what loading gives.
    ///
    /// # Safety
    /// As [`measure`]; with `is_preserved`, for as long as the image is not unloaded.
    pub unsafe fn load(pointer: *const u8, is_preserved: bool) -> CudaResult<&'static Self> {
        let client = client()?;
        client.check_usable()?;
        if pointer.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        // SAFETY: the caller's promise.
        let bytes = unsafe { measure(pointer) }.map_err(|error| refused(&error))?;
        if bytes.kind == ImageKind::Ptx && !ptx::is_ptx(bytes.bytes) {
            return Err(CudaError::INVALID_IMAGE);
        }
        let (source, is_source) = (|| Some(Source(bytes.clone())), !is_preserved && is_source(&bytes));
        let contents =
            || Contents { source: source(), is_source, device: devices::current(), ..Contents::default() };
        let image = IMAGES
            .insert(
                |number| Self { number, contents: Mutex::new(contents()) },
                |image| *image.lock() = contents(),
            )
            .ok_or(CudaError::OUT_OF_MEMORY)?;
        if !is_preserved && let Err(error) = image.ensure_loaded(client) {
            IMAGES.retire(image.number);
            return Err(error);
        }
        Ok(image)
    }

    /// For a device, of bytes that the node knows.
    pub(super) fn loaded(number: u32, device: u32, identity: Identity) -> Self {
        Self { number, contents: Mutex::new(Contents::loaded(device, identity)) }
    }

    /// The same in the place of another one.
    pub(super) fn renew(&self, device: u32, identity: Identity) {
        *self.lock() = Contents::loaded(device, identity);
    }

    /// The image behind a handle.
    ///
    /// # Errors
    /// `INVALID_HANDLE`.
    pub fn find(handle: *mut c_void) -> CudaResult<&'static Self> {
        IMAGES.get(handle).ok_or(CudaError::INVALID_HANDLE)
    }

    /// What the program is given for it.
    #[must_use]
    pub fn handle(&'static self) -> *mut c_void {
        Table::handle(self)
    }

    /// `cuModuleUnload`, `cuLibraryUnload`.
    ///
    /// # Errors
    /// What posting gives.
    pub fn unload(&'static self) -> CudaResult<()> {
        let contents = std::mem::take(&mut *self.lock());
        let client = client()?;
        for (_, twin) in contents.twins {
            twin.unload()?;
        }
        {
            let mut globals = client.images.globals.write().unwrap_or_else(PoisonError::into_inner);
            globals.retain(|known| !contents.globals.values().any(|own| own == known));
        }
        contents.globals.values().for_each(|global| client.owners.forget(global.address));
        let managed = contents.globals.values().filter(|global| client.is_managed_variable(global));
        managed.for_each(|&variable| client.managed.remove_variable(variable));
        contents.kernels.values().for_each(|kernel| kernel.retire());
        let is_loaded = contents.is_loaded;
        host_function::when_posted(move |client| {
            let unload = ImageUnload { image: self.number, reserved: 0 };
            let posted = if is_loaded { client.post(&unload, &[]) } else { Ok(()) };
            IMAGES.retire(self.number);
            posted
        })
    }

    /// A kernel by name (`cuModuleGetFunction`, `cuLibraryGetKernel`).
    ///
    /// # Errors
    /// `NOT_FOUND`, or what loading gives.
    pub fn kernel(&'static self, name: CString) -> CudaResult<&'static Kernel> {
        let client = client()?;
        if let Some(kernel) = self.lock().kernels.get(&name) {
            return Ok(kernel);
        }
        self.ensure_loaded(client)?;
        let mut contents = self.lock();
        if let Some(kernel) = contents.kernels.get(&name) {
            return Ok(kernel);
        }
        let kernel = Kernel::resolve(client, (self, contents.device), name.clone())?;
        contents.kernels.insert(name, kernel);
        Ok(kernel)
    }

    /// Address and length of a global (`cuModuleGetGlobal`, `cuLibraryGetGlobal`).
    ///
    /// # Errors
    /// `NOT_FOUND`, or what loading gives.
    pub fn global(&'static self, name: CString) -> CudaResult<AddressRange> {
        let client = client()?;
        self.ensure_loaded(client)?;
        let mut contents = self.lock();
        if let Some(global) = contents.globals.get(&name) {
            return Ok(*global);
        }
        let answer = client.call(&ImageGlobal { image: self.number, reserved: 0 }, name.as_bytes())?.reply;
        let global = AddressRange { address: answer.address, bytes: answer.bytes };
        client.owners.note(global.address, contents.device);
        contents.globals.insert(name, global);
        if client.is_managed_variable(&global) {
            client.managed.add_variable(global);
        } else {
            client.images.globals.write().unwrap_or_else(PoisonError::into_inner).push(global);
        }
        Ok(global)
    }

    /// As [`Self::global`], of a `__managed__` variable alone (`cuLibraryGetManaged`).
    ///
    /// # Errors
    /// As that.
    pub fn managed_variable(&'static self, name: CString) -> CudaResult<AddressRange> {
        let client = client()?;
        let global = self.global(name)?;
        if client.is_managed_variable(&global) { Ok(global) } else { Err(CudaError::NOT_FOUND) }
    }

    /// The names of all its kernels.
    ///
    /// # Errors
    /// What loading gives.
    pub fn kernel_names(&'static self) -> CudaResult<Vec<CString>> {
        let client = client()?;
        self.ensure_loaded(client)?;
        let mut names = Vec::new();
        loop {
            let answer = client.call(&ImageKernels { image: self.number, first: names.len() as u32 }, &[])?;
            let some = answer.tail.split_inclusive(|&byte| byte == 0);
            names.extend(some.filter_map(|name| CString::from_vec_with_nul(name.to_vec()).ok()));
            if answer.reply.count == 0 || names.len() >= answer.reply.total as usize {
                return Ok(names);
            }
        }
    }

    /// Makes the node know the image under its number, sending its bytes if nobody did before.
    pub(super) fn ensure_loaded(&self, client: &'static Client) -> CudaResult<()> {
        let mut contents = self.lock();
        if contents.is_loaded {
            return Ok(());
        }
        let Some(Source(source)) = &contents.source else { return Err(CudaError::INVALID_HANDLE) };
        client.settle()?;
        let needed = client.device().needed_of(source);
        let hash: [u64; 4] = bytemuck::cast(*blake3::hash(&needed).as_bytes());
        let bytes = needed.len() as u64;
        let load = ImageLoad { image: self.number, reserved: 0, bytes, hash };
        if client.call(&load, &[])?.reply.known == 0 {
            client.stage_for_worker(&needed, |staged, offset, length| {
                let upload = ImageUpload { hash, total_bytes: bytes, offset, source: staged, bytes: length };
                client.post(&upload, &[])
            })?;
            if client.call(&load, &[])?.reply.known == 0 {
                return Err(CudaError::INVALID_IMAGE);
            }
        }
        contents.is_loaded = true;
        contents.identity = Some((hash, bytes));
        contents.source = None;
        Ok(())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An image read from a file (`cuModuleLoad`), with NULs behind it: PTX ends with one, and a magic number has four bytes.
///
/// # Errors
/// `FILE_NOT_FOUND`.
pub fn read_image_file(path: &std::path::Path) -> CudaResult<Vec<u8>> {
    let mut bytes = std::fs::read(path).map_err(|_| CudaError::FILE_NOT_FOUND)?;
    bytes.extend([0; 4]);
    Ok(bytes)
}

fn refused(error: &ImageError) -> CudaError {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| crate::log::write(&format!("an image was refused: {error}")));
    CudaError::INVALID_IMAGE
}
