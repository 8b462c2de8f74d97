//! Images: loaded once per worker for all its clients, kept in files for all workers of the node.
//!
//! An image is known by the hash of its bytes. Files are named by it and checked against it whenever they are read, so
//! that nothing depends on who wrote them. The driver sees an image only when a kernel or variable of it is first needed.

mod image;
pub(crate) mod instance;
pub(crate) mod loader;
pub(crate) mod quota;
pub(crate) mod room;
pub(crate) mod speech;
mod whole;

pub(crate) use image::Image;
pub(crate) use instance::{Instance, LoadedKernel};
pub(crate) use whole::ImageHash;

use crate::worker::gpu::images::loader::Loader;
use crate::worker::gpu::images::quota::ImageQuota;
use crate::worker::gpu::images::room::{DiskRoom, ImageLimits};
use crate::worker::gpu::images::whole::{is_whole, read_checked};
use crate::worker::sync::lock;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use torpor_proto::error::CudaError;

/// All images that the worker knows.
#[derive(Debug)]
pub(crate) struct ImageStore {
    pub(crate) directory: PathBuf,
    pub(crate) known: Mutex<HashMap<ImageHash, Arc<Image>>>,
    pub(crate) limits: ImageLimits,
    pub(crate) room: Mutex<DiskRoom>,
    /// What functions use of them.
    pub(crate) quota: Arc<ImageQuota>,
    files_written: AtomicU64,
    uses: AtomicU64,
}

impl ImageStore {
    /// Keeps images in a directory, which is made if need be.
    pub(crate) fn open(directory: PathBuf, limits: ImageLimits) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        Ok(Self {
            directory,
            known: Mutex::default(),
            limits,
            room: Mutex::default(),
            quota: Arc::default(),
            files_written: AtomicU64::new(0),
            uses: AtomicU64::new(0),
        })
    }

    /// The image with this hash and length, if the node has it.
    pub(crate) fn find(&self, hash: ImageHash, bytes: u64) -> Option<Arc<Image>> {
        if let Some(image) = lock(&self.known).get(&hash) {
            self.use_now(image);
            return (image.bytes() == bytes).then(|| image.clone());
        }
        let file = self.file(hash);
        let contents = fs::File::open(&file).ok()?;
        if !is_whole(&read_checked(&contents, hash, bytes)?) {
            return None;
        }
        // For whoever deletes the longest unused.
        let _ = contents.set_modified(SystemTime::now());
        Some(self.know(hash, bytes, file, contents))
    }

    /// Keeps a new image.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_IMAGE` if the bytes are not those of the hash or no complete image,
    /// `CUDA_ERROR_OPERATING_SYSTEM` if they cannot be written.
    pub(crate) fn add(&self, hash: ImageHash, contents: &[u8]) -> Result<(), CudaError> {
        if blake3::hash(contents) != hash || !is_whole(contents) {
            return Err(CudaError::INVALID_IMAGE);
        }
        self.make_room(contents.len() as u64)?;
        let file = self.file(hash);
        let number = self.files_written.fetch_add(1, Ordering::Relaxed);
        let unfinished = file.with_extension(format!("{}-{number}.tmp", std::process::id()));
        let write = || {
            fs::write(&unfinished, contents)?;
            fs::rename(&unfinished, &file)?;
            fs::File::open(&file)
        };
        let opened = write().map_err(|error| {
            tracing::error!("an image cannot be kept in {}: {error}", self.directory.display());
            // What is there of it is of no use; it may not even be there.
            let _ = fs::remove_file(&unfinished);
            CudaError::OPERATING_SYSTEM
        })?;
        self.know(hash, contents.len() as u64, file, opened);
        Ok(())
    }

    fn know(&self, hash: ImageHash, bytes: u64, file: PathBuf, contents: fs::File) -> Arc<Image> {
        let image = || Arc::new(Image::new(hash, bytes, file, contents));
        let known = lock(&self.known).entry(hash).or_insert_with(image).clone();
        self.use_now(&known);
        known
    }

    fn use_now(&self, image: &Image) {
        image.use_now(self.uses.fetch_add(1, Ordering::Relaxed) + 1);
    }

    /// Whether kernels may write into an image's variables, as far as can be told. One that has no state is loaded; others may be
    /// unloaded for it.
    pub(crate) fn has_state(&self, image: &Image, loader: &Arc<Loader>) -> Result<bool, CudaError> {
        let was_loaded = image.is_loaded();
        let has_state = image.has_state(loader)?;
        if image.is_loaded() && !was_loaded {
            self.unload_unused();
        }
        Ok(has_state)
    }

    /// The instance of an image that all clients share; others may be unloaded for it.
    pub(crate) fn shared(&self, image: &Image, loader: &Arc<Loader>) -> Result<Arc<Instance>, CudaError> {
        if let Some(instance) = image.loaded() {
            return Ok(instance);
        }
        let instance = image.shared(loader)?;
        self.unload_unused();
        Ok(instance)
    }

    fn file(&self, hash: ImageHash) -> PathBuf {
        self.directory.join(blake3::Hash::from_bytes(hash).to_hex().as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ImageLimits = ImageLimits { disk_bytes: u64::MAX, code_bytes: u64::MAX };

    const PTX: &[u8] = b".version 8.0\n.target sm_90\n.address_size 64\n\0";

    #[test]
    fn an_image_is_found_again_by_another_worker() {
        let directory = tempfile::tempdir().unwrap();
        let hash = *blake3::hash(PTX).as_bytes();
        let store = ImageStore::open(directory.path().to_owned(), LIMITS).unwrap();
        assert!(store.find(hash, PTX.len() as u64).is_none());
        store.add(hash, PTX).unwrap();
        assert!(store.find(hash, PTX.len() as u64).is_some());
        assert!(store.find(hash, 7).is_none());
        let other = ImageStore::open(directory.path().to_owned(), LIMITS).unwrap();
        assert!(other.find(hash, PTX.len() as u64).is_some());
    }

    #[test]
    fn what_is_not_the_hash_s_or_no_image_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = ImageStore::open(directory.path().to_owned(), LIMITS).unwrap();
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
