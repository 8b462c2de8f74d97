//! The fatbin wrapper: what compilers emit into `.nvFatBinSegment` and pass to `__cudaRegisterFatBinary`.
//!
//! ```text
//!  0 u32 magic 0x466243b1   4 u32 version   8 container*   16 version 1: file name*, version 2: container*[] ending in null
//! ```
//! It holds pointers, so it only has a meaning inside the process it comes from.

use super::source::Unbounded;
use super::{Image, ImageError, ImageKind, fatbin};

/// The first word of a wrapper.
pub const WRAPPER_MAGIC: u32 = 0x4662_43b1;

/// Version of a wrapper whose last field lists prelinked containers.
const VERSION_PRELINKED: u32 = 2;
/// No linker makes more; a longer list is no list.
const MAX_PRELINKED: usize = 65_536;

/// A wrapper in memory; 24 bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Wrapper {
    /// [`WRAPPER_MAGIC`].
    pub magic: u32,
    /// 1, or 2 where containers were linked beforehand.
    pub version: u32,
    /// The container.
    pub container: *const u8,
    /// Version 1: a file name or null. Version 2: an array of container pointers that ends in a null pointer.
    pub extra: *const u8,
}

const _: () = assert!(size_of::<Wrapper>() == 24);

impl Wrapper {
    /// Reads the wrapper at `pointer`, whose magic number was seen.
    ///
    /// # Safety
    /// 24 bytes at `pointer` are readable.
    pub(super) unsafe fn read(pointer: *const u8) -> Result<Self, ImageError> {
        // SAFETY: the caller promises 24 readable bytes; every bit pattern is a `Wrapper`.
        let wrapper = unsafe { pointer.cast::<Self>().read_unaligned() };
        if wrapper.version == 0 {
            return Err(ImageError::Malformed { what: "wrapper version", offset: 4 });
        }
        Ok(wrapper)
    }

    /// The container that this wrapper refers to, with its prelinked ones.
    ///
    /// # Safety
    /// What the pointers refer to is as `version` says, readable, and stays as long as the result is used.
    pub(super) unsafe fn image(&self) -> Result<Image<'static>, ImageError> {
        // SAFETY: the caller promises a container there.
        let bytes = unsafe { container_at(self.container) }?;
        let mut prelinked = Vec::new();
        if self.version == VERSION_PRELINKED && !self.extra.is_null() {
            let list = self.extra.cast::<*const u8>();
            loop {
                // SAFETY: the caller promises an array that ends in null, and none was seen so far.
                let entry = unsafe { list.add(prelinked.len()).read_unaligned() };
                if entry.is_null() {
                    break;
                }
                if prelinked.len() == MAX_PRELINKED {
                    return Err(ImageError::Malformed { what: "list of prelinked containers", offset: 16 });
                }
                // SAFETY: the caller promises a container behind each entry.
                prelinked.push(unsafe { container_at(entry) }?);
            }
        }
        Ok(Image { kind: ImageKind::Container, bytes, prelinked })
    }
}

/// The container at `pointer`.
///
/// # Safety
/// `pointer` is null or a complete container lies there and stays as long as the result is used.
unsafe fn container_at(pointer: *const u8) -> Result<&'static [u8], ImageError> {
    if pointer.is_null() {
        return Err(ImageError::Null("container"));
    }
    // SAFETY: as the caller promises.
    fatbin::container(unsafe { Unbounded::new(pointer) })
}
