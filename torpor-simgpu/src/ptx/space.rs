//! Device memory as the interpreter sees it, and where the other address spaces lie in the generic one.

use std::ptr::NonNull;

use super::error::MemoryFault;

/// Generic addresses of shared memory start here: no device allocation lies so high.
pub(super) const SHARED_BASE: u64 = 0xfff1_0000_0000_0000;
/// Generic addresses of a thread's local memory start here.
pub(super) const LOCAL_BASE: u64 = 0xfff2_0000_0000_0000;
/// Generic addresses of the kernel's parameters start here.
pub(super) const PARAMETER_BASE: u64 = 0xfff3_0000_0000_0000;
/// The part of a generic address that names the window.
pub(super) const WINDOW_MASK: u64 = 0xffff_0000_0000_0000;

/// What an instruction does to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An atomic read-modify-write.
    Atomic,
}

/// A range of device addresses in which accesses of one kind need no further question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First device address.
    pub address: u64,
    /// Bytes from there.
    pub bytes: u64,
    /// Host address of the first byte.
    pub host: NonNull<u8>,
}

/// Where a texture is read.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TexturePlace {
    /// Coordinates, as many as there are dimensions.
    pub coordinates: [f32; 3],
    /// The same as numbers of elements, if the instruction gives these.
    pub elements: Option<[i32; 3]>,
    /// How many there are.
    pub dimensions: usize,
    /// Which layer, of a layered one.
    pub layer: Option<u32>,
    /// Which level.
    pub level: f32,
}

/// What a surface instruction reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SurfacePlace {
    /// The first byte of the row, the row, the slice or layer.
    pub at: [i32; 3],
    /// Bytes there.
    pub bytes: usize,
    /// What is outside is the nearest that is inside.
    pub is_clamped: bool,
}

/// The device memory that a kernel reads and writes.
///
/// A returned host address must be as aligned as the device address (up to 8 bytes), and must stay valid for reads
/// and writes until the launch returns. The interpreter only uses relaxed atomic operations on it.
pub trait DeviceMemory: Sync {
    /// Host address of `bytes` bytes at a device address, or the fault.
    fn resolve(&self, address: u64, bytes: usize, access: Access) -> Result<NonNull<u8>, MemoryFault>;

    /// The largest range around an address in which every `access` is allowed until the launch returns, if that can
    /// be promised: then it is not asked about again. It makes scattered accesses about ten times faster. An
    /// implementation that checks each access (memory never written, say) keeps the default.
    fn window(&self, address: u64, access: Access) -> Option<Window> {
        let _ = (address, access);
        None
    }

    /// The four channels that a texture has at a place, as bits; or the fault.
    fn fetch(&self, texture: u64, place: &TexturePlace) -> Result<[u32; 4], MemoryFault> {
        let _ = place;
        Err(MemoryFault { address: texture, bytes: 0, access: Access::Read, reason: "there are no textures" })
    }

    /// Host address of a place of a surface, as aligned as its offset in the row; nothing if it lies outside.
    fn surface(
        &self,
        surface: u64,
        place: &SurfacePlace,
        access: Access,
    ) -> Result<Option<NonNull<u8>>, MemoryFault> {
        Err(MemoryFault { address: surface, bytes: place.bytes, access, reason: "there are no surfaces" })
    }
}
