//! An image that the node knows: its file, and the instance that clients share.

use crate::compiler::Plain;
use crate::worker::gpu::images::instance::Instance;
use crate::worker::gpu::images::loader::Loader;
use crate::worker::gpu::images::speech::Speech;
use crate::worker::gpu::images::whole::{ImageHash, read_checked};
use crate::worker::sync::lock;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use torpor_proto::error::CudaError;
use torpor_proto::image::relocate::{Bases, Immovable, Relocatable};
use torpor_proto::image::{Image as Parsed, ImageKind, Refusal, ptx};

/// An image that the node knows.
#[derive(Debug)]
pub(crate) struct Image {
    hash: ImageHash,
    bytes: u64,
    file: PathBuf,
    /// Open, since another worker may delete the file.
    contents: File,
    shared: Mutex<Option<Arc<Instance>>>,
    /// Held while the driver makes that, which may take it a minute: who only wants to know whether it is there does not wait.
    loading: Mutex<()>,
    has_state: OnceLock<bool>,
    /// What the compiler says of errors in it.
    said: OnceLock<Vec<u8>>,
    told_immovable: AtomicBool,
    last_used: AtomicU64,
}

impl Image {
    /// Whose bytes are whole, in an open file that may be deleted meanwhile.
    pub(crate) fn new(hash: ImageHash, bytes: u64, file: PathBuf, contents: File) -> Self {
        let (shared, loading, has_state, said, told_immovable, last_used) = Default::default();
        Self { hash, bytes, file, contents, shared, loading, has_state, said, told_immovable, last_used }
    }

    /// BLAKE3 of its bytes.
    pub(crate) fn hash(&self) -> ImageHash {
        self.hash
    }

    /// Whether it is the one with so many bytes of this hash.
    pub(crate) fn is(&self, hash: ImageHash, bytes: u64) -> bool {
        (self.hash, self.bytes) == (hash, bytes)
    }

    /// The beginning of its hash, for people.
    pub(crate) fn short_name(&self) -> String {
        blake3::Hash::from_bytes(self.hash).to_hex()[..12].to_owned()
    }

    /// Its length.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where its bytes lie, unless that was deleted.
    pub(crate) fn file(&self) -> &PathBuf {
        &self.file
    }

    /// Grows with every use.
    pub(crate) fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }

    /// It is used for the so-many-th time of all uses.
    pub(crate) fn use_now(&self, number: u64) {
        self.last_used.store(number, Ordering::Relaxed);
    }

    /// Whether it has an instance that all clients share.
    pub(crate) fn is_loaded(&self) -> bool {
        lock(&self.shared).is_some()
    }

    /// That instance, for those whose work on the GPU uses it.
    pub(crate) fn loaded(&self) -> Option<Arc<Instance>> {
        lock(&self.shared).clone()
    }

    /// Takes that instance away, if there is one. `None` if it is used.
    pub(crate) fn take_unused(&self) -> Option<Option<Arc<Instance>>> {
        let mut shared = lock(&self.shared);
        let is_used = shared.as_ref().is_some_and(|instance| Arc::strong_count(instance) > 1);
        (!is_used).then(|| shared.take())
    }

    /// The instance that all clients share.
    pub(crate) fn shared(&self, loader: &Arc<Loader>) -> Result<Arc<Instance>, CudaError> {
        self.loaded().map_or_else(|| self.make_shared(|| self.load(loader)), Ok)
    }

    /// Loads that instance, unless somebody does so meanwhile.
    fn make_shared(
        &self,
        load: impl FnOnce() -> Result<Arc<Instance>, CudaError>,
    ) -> Result<Arc<Instance>, CudaError> {
        let _one_at_a_time = lock(&self.loading);
        if let Some(instance) = self.loaded() {
            return Ok(instance);
        }
        let instance = load()?;
        *lock(&self.shared) = Some(instance.clone());
        Ok(instance)
    }

    /// An instance of its own.
    pub(crate) fn load(&self, loader: &Arc<Loader>) -> Result<Arc<Instance>, CudaError> {
        self.load_plain(loader, self.plain(loader)?)
    }

    /// What the compiler said of errors in it, for people; empty if it was not asked, or had nothing to say.
    pub(crate) fn said(&self) -> &[u8] {
        self.said.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// What the compiler made, or its error, whose text is kept.
    fn made(&self, made: Result<Vec<u8>, Refusal>) -> Result<Vec<u8>, CudaError> {
        made.map_err(|refusal| {
            self.said.get_or_init(|| refusal.said);
            refusal.error
        })
    }

    fn load_plain(&self, loader: &Arc<Loader>, plain: Plain) -> Result<Arc<Instance>, CudaError> {
        let (code, speech) = match plain {
            Plain::Cubin(cubin) => of_cubin(cubin),
            Plain::Ptx(text) => of_cubin(self.made(loader.compile(&text))?),
            Plain::Choice(_, container) => (container, Speech::default()),
        };
        // SAFETY: a cubin that is an image was found whole, and so is what the compiler answers: no part of it lies outside of these bytes.
        unsafe { Instance::load(loader, &code, speech) }
    }

    /// Whether kernels may write into its variables, as far as can be told. An image that has no state is loaded, since its
    /// code is at hand.
    pub(crate) fn has_state(&self, loader: &Arc<Loader>) -> Result<bool, CudaError> {
        if let Some(&known) = self.has_state.get() {
            return Ok(known);
        }
        let plain = self.plain(loader)?;
        let has_state = match &plain {
            Plain::Cubin(cubin) => Relocatable::read(cubin.clone()).is_ok_and(|code| code.has_state()),
            Plain::Ptx(text) => ptx::text(text).is_some_and(ptx::has_state),
            // The driver will choose.
            Plain::Choice(..) => false,
        };
        if !has_state {
            self.make_shared(|| self.load_plain(loader, plain))?;
        }
        Ok(*self.has_state.get_or_init(|| has_state))
    }

    /// Its code for a GPU, to be loaded with variables elsewhere; the inner error says why they cannot be.
    pub(crate) fn relocatable(
        &self,
        loader: &Arc<Loader>,
    ) -> Result<Result<Relocatable, Immovable>, CudaError> {
        let cubin = match self.plain(loader)? {
            Plain::Cubin(cubin) => Ok(cubin),
            Plain::Ptx(text) => self.made(loader.compile(&text)).map_err(|error| Immovable::Ptx(error.0)),
            Plain::Choice(cubins, _) => Err(Immovable::Code(cubins)),
        };
        Ok(cubin.and_then(Relocatable::read))
    }

    /// What is in it for a GPU.
    fn plain(&self, loader: &Loader) -> Result<Plain, CudaError> {
        let bytes = self.read()?;
        match Parsed::parse(&bytes).map_err(|_| CudaError::INVALID_IMAGE)?.kind {
            ImageKind::Elf => Ok(Plain::Cubin(bytes)),
            ImageKind::Ptx => Ok(Plain::Ptx(bytes)),
            ImageKind::Container => loader.unpack(&bytes),
            ImageKind::Bundle => self.made(loader.link(&bytes)).map(Plain::Cubin),
        }
    }

    /// An instance whose variables are in blocks at these addresses.
    pub(crate) fn load_relocated(
        &self,
        loader: &Arc<Loader>,
        code: &Relocatable,
        bases: Bases,
    ) -> Result<Arc<Instance>, CudaError> {
        let cubin = code.code(bases);
        // SAFETY: a complete cubin was read, and what was put into it is addresses alone.
        unsafe { Instance::load(loader, &cubin, Speech::of_cubin(&cubin)) }
    }

    /// True for whoever is the first to say that its variables cannot be moved.
    pub(crate) fn is_news(&self) -> bool {
        !self.told_immovable.swap(true, Ordering::Relaxed)
    }

    /// Its bytes.
    pub(crate) fn read(&self) -> Result<Vec<u8>, CudaError> {
        read_checked(&self.contents, self.hash, self.bytes).ok_or(CudaError::FILE_NOT_FOUND)
    }
}

fn of_cubin(cubin: Vec<u8>) -> (Vec<u8>, Speech) {
    let speech = Speech::of_cubin(&cubin);
    (cubin, speech)
}
