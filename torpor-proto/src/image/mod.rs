//! GPU images: where one ends, what is in it.
//!
//! An *image* is what a program hands to a module loader: a fatbin container (possibly behind a wrapper made of
//! pointers), a cubin (a 64-bit ELF file), PTX text, or what Torpor's `cuLinkComplete` made of several of those. Clients hand over
//! bare pointers, so the length must be read from the image itself: [`measure`]. Servers and simulators get bytes from somebody they do not trust:
//! [`Image::parse`], [`fatbin::entries`], [`bundle::Bundle::parse`], [`cubin::kernels`] and [`cubin::globals`] read nothing outside the slice, never
//! panic, and bound what they allocate by the size of their input or by a stated maximum.
//!
//! The formats are undocumented; the facts stand in the project's notes on the driver surface and are held against the
//! 444 containers of PyTorch's libtorch_cuda.so in the tests (environment variable `TORPOR_TEST_TORCH`).

mod assertions;
pub mod bundle;
mod calls;
pub mod cubin;
mod elf;
mod error;
pub mod fatbin;
mod narrow;
mod payload;
pub mod ptx;
#[cfg(test)]
mod real;
mod refusal;
pub mod relocate;
mod select;
mod source;
pub mod synthetic;
#[cfg(test)]
mod tests;
mod wrapper;

pub use assertions::AssertionTexts;
pub use calls::DriverCalls;
pub use error::ImageError;
pub use narrow::for_gpu;
pub use payload::MAX_PAYLOAD_BYTES;
pub use refusal::Refusal;
pub use select::{Code, choice_for, code_for};
pub use wrapper::{WRAPPER_MAGIC, Wrapper};

use source::{Source, Unbounded, u32_at};

/// The largest image taken, in bytes. All of libtorch_cuda 2.11 together has 0.3 GB.
pub const MAX_IMAGE_BYTES: u64 = 2 << 30;

/// What an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageKind {
    /// A fatbin container: several cubins and PTX texts for different GPUs; see [`fatbin`].
    Container,
    /// A 64-bit ELF file; see [`cubin`].
    Elf,
    /// NUL-terminated PTX text; see [`ptx`].
    Ptx,
    /// Inputs of a linker; see [`bundle`].
    Bundle,
}

/// An image whose extent is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image<'a> {
    /// What it is.
    pub kind: ImageKind,
    /// All of it: a container or bundle with its header, an ELF file to its furthest end, PTX with its terminating NUL.
    pub bytes: &'a [u8],
    /// The containers which were linked into `bytes` beforehand, each with its header. Only a wrapper of version 2 lists
    /// any: it is what `nvlink` leaves in programs with relocatable device code; `bytes` is the linked result, which
    /// suffices for loading on a GPU it was built for.
    pub prelinked: Vec<&'a [u8]>,
}

impl<'a> Image<'a> {
    /// The image at the start of `bytes`, which may come from anybody and may go on behind the image.
    ///
    /// A wrapper is refused: it consists of pointers of another process.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ImageError> {
        extent(bytes)
    }
}

/// The image at `pointer`, which may point to a wrapper, a container, a bundle, an ELF file or text.
///
/// # Errors
/// A null pointer, anything of an unknown format, and images above [`MAX_IMAGE_BYTES`] are refused.
///
/// # Safety
/// `pointer` is null or points to at least four readable bytes. If these start an image of a known format, all of it is
/// readable (including what its headers and a wrapper's pointers refer to). The memory stays readable and
/// unchanged for as long as the result is used; fatbins live in the read-only data of a loaded library, while for images
/// passed to a load call this is until the call returns.
pub unsafe fn measure(pointer: *const u8) -> Result<Image<'static>, ImageError> {
    if pointer.is_null() {
        return Err(ImageError::Null("image"));
    }
    // SAFETY: the caller promises at least four readable bytes; no alignment is asked for.
    let magic = unsafe { pointer.cast::<u32>().read_unaligned() };
    if magic == WRAPPER_MAGIC {
        // SAFETY: the caller promises that a wrapper is complete and so is what its pointers refer to.
        let wrapper = unsafe { Wrapper::read(pointer) }?;
        // SAFETY: as above.
        return unsafe { wrapper.image() };
    }
    // SAFETY: the caller promises a complete image, text, or four bytes of something else.
    extent(unsafe { Unbounded::new(pointer) })
}

/// The image at the start of `source`, anything but a wrapper.
fn extent<'a, S: Source<'a>>(source: S) -> Result<Image<'a>, ImageError> {
    let first = source.bytes("first word", 0, 4).ok().and_then(|bytes| u32_at(bytes, 0));
    let (kind, bytes) = match first {
        Some(fatbin::CONTAINER_MAGIC) => (ImageKind::Container, fatbin::container(source)?),
        Some(bundle::BUNDLE_MAGIC) => (ImageKind::Bundle, bundle::extent(source)?),
        Some(elf::MAGIC) => (ImageKind::Elf, source.bytes("ELF file", 0, elf::extent_bytes(source)?)?),
        _ => {
            let bytes = source.text()?;
            if ptx::text(bytes).is_none() {
                return Err(ImageError::Unrecognised { first: first.unwrap_or(0) });
            }
            (ImageKind::Ptx, bytes)
        }
    };
    Ok(Image { kind, bytes, prelinked: Vec::new() })
}
