//! Memory objects and pools as file descriptors (`cuMemExportToShareableHandle`, `cuMemPoolExportToShareableHandle`): a program sends
//! them to another process, or leaves them open in one that it starts.
//!
//! The file says what the object is imported with. It is the kernel's to pass on, and whoever can read it may import the object.

use super::Secret;
use crate::core::virtual_memory::{ObjectProperties, Source};
use crate::core::{Client, CudaResult};
use bytemuck::{Pod, Zeroable};
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, IntoRawFd, RawFd};
use std::os::unix::fs::FileExt;
use torpor_proto::command::MemoryExport;
use torpor_proto::error::CudaError;
use torpor_proto::mapping::create_sealed;

/// What such a file holds.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Contents {
    kind: [u8; 8],
    secret: Secret,
    exporter: u64,
    bytes: u64,
    properties: ObjectProperties,
}

const KIND: [u8; 8] = *b"torporD1";

impl Client {
    /// A new descriptor, the program's to close, for an object.
    ///
    /// # Errors
    /// `INVALID_VALUE` if there is no such handle; `OPERATING_SYSTEM` without descriptors.
    pub fn export_object(&'static self, handle: u64) -> CudaResult<RawFd> {
        let properties = self.object_properties(handle)?;
        self.begin_sharing()?;
        let secret = self.call(&MemoryExport { home: handle }, &[])?.reply.secret;
        let bytes = self.note_object_secret(handle, secret)?;
        let contents = Contents { kind: KIND, secret, exporter: self.id, bytes, properties };
        write_descriptor("torpor-memory-object", &contents)
    }

    /// A handle for the object behind a descriptor, which stays the program's: one more, if this process has it.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it is no such descriptor, of another function, or nobody has the object any more.
    pub fn import_object(&'static self, descriptor: RawFd) -> CudaResult<u64> {
        self.check_usable()?;
        let Contents { kind, secret, exporter, bytes, properties } = read_descriptor(descriptor)?;
        if kind != KIND {
            return Err(CudaError::INVALID_VALUE);
        }
        self.begin_sharing()?;
        let _one_at_a_time = self.ipc.lock();
        match self.object_of_secret(secret) {
            Some(handle) => self.share_object(handle),
            None => self.import_new_object(Source { secret, exporter }, bytes, properties),
        }
    }
}

/// A new descriptor, the program's to close, of a file that holds this.
///
/// # Errors
/// `OPERATING_SYSTEM` without descriptors.
pub(super) fn write_descriptor(name: &str, contents: &impl Pod) -> CudaResult<RawFd> {
    let contents = bytemuck::bytes_of(contents);
    let file = create_sealed(name, contents.len() as u64).map(File::from);
    let file = file.map_err(|_| CudaError::OPERATING_SYSTEM)?;
    file.write_all_at(contents, 0).map_err(|_| CudaError::OPERATING_SYSTEM)?;
    Ok(file.into_raw_fd())
}

/// What the file of a descriptor holds, which stays the program's.
///
/// # Errors
/// `INVALID_VALUE` if it is none, or holds less.
pub(super) fn read_descriptor<T: Pod>(descriptor: RawFd) -> CudaResult<T> {
    if descriptor < 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    // SAFETY: the program says that the descriptor is open; it is not closed here, and nothing but reading is done with it.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(descriptor) });
    let mut contents = T::zeroed();
    file.read_exact_at(bytemuck::bytes_of_mut(&mut contents), 0).map_err(|_| CudaError::INVALID_VALUE)?;
    Ok(contents)
}
