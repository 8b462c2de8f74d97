//! Images: loaded once per worker for all its clients, kept in files for all workers of the node.
//!
//! An image is known by the hash of its bytes. Files are named by it and checked against it whenever they are read, so
//! that nothing depends on who wrote them. The driver sees an image only when a kernel or global of it is first needed.

use crate::driver::{CodeLibrary, Device, Kernel};
use crate::worker::shared::lock;
use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use torpor_proto::command::{KERNEL_ATTRIBUTES, Parameter};
use torpor_proto::error::CudaError;
use torpor_proto::image::{Image as Parsed, ImageKind, MAX_IMAGE_BYTES, fatbin};

/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
pub(super) const MAX_DYNAMIC_SHARED: u32 = 8;

/// BLAKE3 of an image's bytes.
pub(super) type ImageHash = [u8; 32];

/// A kernel of a loaded image.
#[derive(Debug)]
pub(super) struct LoadedKernel {
    /// What the driver launches.
    pub(super) kernel: Kernel,
    /// As they were before anybody set any.
    pub(super) attributes: [i32; KERNEL_ATTRIBUTES],
    /// Where parameters lie.
    pub(super) parameters: Vec<Parameter>,
    /// Length of the parameter block.
    pub(super) block_bytes: usize,
    /// The dynamic shared memory that launches may use by now: the most that any client asked for.
    dynamic_shared: Mutex<i32>,
}

/// An image, loaded.
#[derive(Debug)]
pub(super) struct Instance {
    library: CodeLibrary,
    kernels: Mutex<HashMap<String, Arc<LoadedKernel>>>,
    names: OnceLock<Vec<CString>>,
}

impl Instance {
    /// A kernel by its name, which the driver is asked for once.
    pub(super) fn kernel(&self, name: &str) -> Result<Arc<LoadedKernel>, CudaError> {
        let mut kernels = lock(&self.kernels);
        if let Some(known) = kernels.get(name) {
            return Ok(known.clone());
        }
        let kernel = self.library.kernel(name)?;
        let parameters = self.library.parameters(kernel)?;
        let attributes = self.library.attributes(kernel);
        let end = |parameter: &Parameter| parameter.offset as usize + parameter.bytes as usize;
        let loaded = Arc::new(LoadedKernel {
            kernel,
            attributes,
            block_bytes: parameters.iter().map(end).max().unwrap_or(0),
            parameters,
            dynamic_shared: Mutex::new(attributes[MAX_DYNAMIC_SHARED as usize]),
        });
        kernels.insert(name.to_owned(), loaded.clone());
        Ok(loaded)
    }

    /// Sets an attribute. Dynamic shared memory is only ever raised, because others launch the same kernel.
    pub(super) fn set_attribute(
        &self,
        kernel: &LoadedKernel,
        attribute: u32,
        value: i32,
    ) -> Result<(), CudaError> {
        if attribute != MAX_DYNAMIC_SHARED {
            return self.library.set_attribute(kernel.kernel, attribute, value);
        }
        let mut current = lock(&kernel.dynamic_shared);
        if value > *current {
            self.library.set_attribute(kernel.kernel, attribute, value)?;
            *current = value;
        }
        if value < 0 { Err(CudaError::INVALID_VALUE) } else { Ok(()) }
    }

    /// Address and length of a global.
    pub(super) fn global(&self, name: &str) -> Result<(u64, u64), CudaError> {
        self.library.global(name)
    }

    /// The names of all kernels.
    pub(super) fn kernel_names(&self) -> Result<&[CString], CudaError> {
        if let Some(names) = self.names.get() {
            return Ok(names);
        }
        let names = self.library.kernel_names()?;
        Ok(self.names.get_or_init(|| names))
    }
}

/// An image that the node knows.
#[derive(Debug)]
pub(super) struct Image {
    hash: ImageHash,
    bytes: u64,
    file: PathBuf,
    shared: Mutex<Option<Arc<Instance>>>,
}

impl Image {
    /// BLAKE3 of its bytes.
    pub(super) fn hash(&self) -> ImageHash {
        self.hash
    }

    /// Its length.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The instance that all clients share.
    pub(super) fn shared(&self, device: &Arc<Device>) -> Result<Arc<Instance>, CudaError> {
        let mut shared = lock(&self.shared);
        if let Some(instance) = &*shared {
            return Ok(instance.clone());
        }
        let instance = self.load(device)?;
        *shared = Some(instance.clone());
        Ok(instance)
    }

    /// An instance of its own.
    pub(super) fn load(&self, device: &Arc<Device>) -> Result<Arc<Instance>, CudaError> {
        let bytes = read_checked(&self.file, self.hash, self.bytes).ok_or(CudaError::FILE_NOT_FOUND)?;
        // SAFETY: only images that `is_whole` found complete are known, and the bytes have the same hash.
        let library = unsafe { CodeLibrary::load(device, &bytes)? };
        Ok(Arc::new(Instance { library, kernels: Mutex::default(), names: OnceLock::new() }))
    }
}

/// All images that the worker knows.
#[derive(Debug)]
pub(super) struct ImageStore {
    directory: PathBuf,
    known: Mutex<HashMap<ImageHash, Arc<Image>>>,
    files_written: AtomicU64,
}

impl ImageStore {
    /// Keeps images in a directory, which is made if need be.
    pub(super) fn open(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        Ok(Self { directory, known: Mutex::default(), files_written: AtomicU64::new(0) })
    }

    /// The image with this hash and length, if the node has it.
    pub(super) fn find(&self, hash: ImageHash, bytes: u64) -> Option<Arc<Image>> {
        if let Some(image) = lock(&self.known).get(&hash) {
            return (image.bytes == bytes).then(|| image.clone());
        }
        let file = self.file(hash);
        let contents = read_checked(&file, hash, bytes)?;
        is_whole(&contents).then(|| self.know(hash, bytes, file))
    }

    /// Keeps a new image.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_IMAGE` if the bytes are not those of the hash or no complete image,
    /// `CUDA_ERROR_OPERATING_SYSTEM` if they cannot be written.
    pub(super) fn add(&self, hash: ImageHash, contents: &[u8]) -> Result<(), CudaError> {
        if blake3::hash(contents) != hash || !is_whole(contents) {
            return Err(CudaError::INVALID_IMAGE);
        }
        let file = self.file(hash);
        let number = self.files_written.fetch_add(1, Ordering::Relaxed);
        let unfinished = file.with_extension(format!("{}-{number}.tmp", std::process::id()));
        fs::write(&unfinished, contents).and_then(|()| fs::rename(&unfinished, &file)).map_err(|error| {
            tracing::error!("an image cannot be kept in {}: {error}", self.directory.display());
            // What is there of it is of no use; it may not even be there.
            let _ = fs::remove_file(&unfinished);
            CudaError::OPERATING_SYSTEM
        })?;
        self.know(hash, contents.len() as u64, file);
        Ok(())
    }

    fn know(&self, hash: ImageHash, bytes: u64, file: PathBuf) -> Arc<Image> {
        let image = || Arc::new(Image { hash, bytes, file, shared: Mutex::default() });
        lock(&self.known).entry(hash).or_insert_with(image).clone()
    }

    fn file(&self, hash: ImageHash) -> PathBuf {
        self.directory.join(blake3::Hash::from_bytes(hash).to_hex().as_str())
    }
}

/// A file's contents, if they are what they should be.
fn read_checked(file: &PathBuf, hash: ImageHash, bytes: u64) -> Option<Vec<u8>> {
    if bytes > MAX_IMAGE_BYTES || fs::metadata(file).ok()?.len() != bytes {
        return None;
    }
    let contents = fs::read(file).ok()?;
    (contents.len() as u64 == bytes && blake3::hash(&contents) == hash).then_some(contents)
}

/// Whether the bytes are one complete image and nothing else: the driver is never told how long it is.
fn is_whole(contents: &[u8]) -> bool {
    let Ok(parsed) = Parsed::parse(contents) else { return false };
    let inside = match parsed.kind {
        ImageKind::Container => {
            fatbin::entries(contents).is_ok_and(|mut entries| entries.all(|entry| entry.is_ok()))
        }
        ImageKind::Elf => true,
        ImageKind::Ptx => contents.last() == Some(&0),
    };
    inside && parsed.bytes.len() == contents.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTX: &[u8] = b".version 8.0\n.target sm_90\n.address_size 64\n\0";

    #[test]
    fn an_image_is_found_again_by_another_worker() {
        let directory = tempfile::tempdir().unwrap();
        let hash = *blake3::hash(PTX).as_bytes();
        let store = ImageStore::open(directory.path().to_owned()).unwrap();
        assert!(store.find(hash, PTX.len() as u64).is_none());
        store.add(hash, PTX).unwrap();
        assert!(store.find(hash, PTX.len() as u64).is_some());
        assert!(store.find(hash, 7).is_none());
        let other = ImageStore::open(directory.path().to_owned()).unwrap();
        assert!(other.find(hash, PTX.len() as u64).is_some());
    }

    #[test]
    fn what_is_not_the_hash_s_or_no_image_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = ImageStore::open(directory.path().to_owned()).unwrap();
        assert_eq!(store.add([7; 32], PTX), Err(CudaError::INVALID_IMAGE));
        for nonsense in [
            b"".as_slice(),
            b"\x7fELF\x02\x01",
            &PTX[..20],
            b"\x50\xed\x55\xba\x01\0\x10\0\xff\xff\0\0\0\0\0\0",
        ] {
            let hash = *blake3::hash(nonsense).as_bytes();
            assert_eq!(store.add(hash, nonsense), Err(CudaError::INVALID_IMAGE), "{nonsense:?}");
        }
        let hash = *blake3::hash(PTX).as_bytes();
        fs::write(store.file(hash), [&PTX[..PTX.len() - 2], b"\x07\0"].concat()).unwrap();
        assert!(store.find(hash, PTX.len() as u64).is_none(), "a damaged file must not be used");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing unfinished is left");
    }
}
