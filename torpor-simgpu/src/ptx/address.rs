//! From the address that a lane computes to the bytes it means, in whatever space.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::error::MemoryFault;
use super::instruction::{Cause, Instruction, active};
use super::launch::Context;
use super::registers::{LANES, Registers};
use super::space::{Access, DeviceMemory, LOCAL_BASE, PARAMETER_BASE, SHARED_BASE, WINDOW_MASK, Window};

/// The address space of a memory instruction, in its field `e`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    Generic,
    Global,
    Shared,
    Local,
    Parameter,
}

impl Space {
    pub(super) fn code(self) -> u32 {
        self as u32
    }

    #[inline(always)]
    fn of(code: u32) -> Self {
        match code {
            0 => Self::Generic,
            1 => Self::Global,
            2 => Self::Shared,
            3 => Self::Local,
            _ => Self::Parameter,
        }
    }
}

/// Where the bytes of one lane's access are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// Device memory.
    Host(NonNull<u8>),
    /// Offset in the block's shared memory.
    Shared(usize),
    /// Offset in the warp's local memory.
    Local(usize),
    /// Offset in the parameters.
    Parameter(usize),
}

/// An integer that memory holds.
pub(super) trait Word: Copy + Default {
    const BYTES: usize;
    /// # Safety
    /// `host` is valid for an atomic load of the type and aligned for it.
    unsafe fn load(host: NonNull<u8>) -> Self;
    /// # Safety
    /// `host` is valid for an atomic store of the type and aligned for it.
    unsafe fn store(self, host: NonNull<u8>);
    /// Reads the word at an offset that is in the slice.
    fn get(bytes: &[u8], at: usize) -> Self;
    /// Writes the word at an offset that is in the slice.
    fn put(self, bytes: &mut [u8], at: usize);
}

macro_rules! word {
    ($type:ty, $atomic:ty) => {
        impl Word for $type {
            const BYTES: usize = size_of::<$type>();

            #[inline(always)]
            unsafe fn load(host: NonNull<u8>) -> Self {
                // SAFETY: the caller's promise.
                unsafe { <$atomic>::from_ptr(host.as_ptr().cast()) }.load(Ordering::Relaxed)
            }

            #[inline(always)]
            unsafe fn store(self, host: NonNull<u8>) {
                // SAFETY: the caller's promise.
                unsafe { <$atomic>::from_ptr(host.as_ptr().cast()) }.store(self, Ordering::Relaxed);
            }

            #[inline(always)]
            fn get(bytes: &[u8], at: usize) -> Self {
                bytes[at..].first_chunk().map_or(0, |chunk| Self::from_le_bytes(*chunk))
            }

            #[inline(always)]
            fn put(self, bytes: &mut [u8], at: usize) {
                bytes[at..at + Self::BYTES].copy_from_slice(&self.to_le_bytes());
            }
        }
    };
}

word!(u8, AtomicU8);
word!(u16, AtomicU16);
word!(u32, AtomicU32);
word!(u64, AtomicU64);

/// Windows into device memory that one host thread has met in a launch.
#[derive(Debug, Default)]
pub(super) struct WindowCache {
    /// By kind of access, most recent first.
    recent: [[Option<Window>; 4]; 3],
}

impl WindowCache {
    #[inline(always)]
    fn find(&self, address: u64, bytes: usize, access: Access) -> Option<NonNull<u8>> {
        self.recent[access as usize].iter().flatten().find_map(|window| inside(window, address, bytes))
    }

    /// Asks for the window around an address and remembers it.
    #[cold]
    fn ask(
        &mut self,
        memory: &dyn DeviceMemory,
        address: u64,
        bytes: usize,
        access: Access,
    ) -> Option<NonNull<u8>> {
        let window = memory.window(address, access)?;
        let recent = &mut self.recent[access as usize];
        recent.rotate_right(1);
        recent[0] = Some(window);
        inside(&window, address, bytes)
    }
}

#[inline(always)]
fn inside(window: &Window, address: u64, bytes: usize) -> Option<NonNull<u8>> {
    let offset = address.wrapping_sub(window.address);
    let fits = offset < window.bytes && window.bytes - offset >= bytes as u64;
    // SAFETY: the offset is inside the window, which `DeviceMemory` promises to be one range of host memory.
    fits.then(|| unsafe { window.host.add(offset as usize) })
}

/// One memory instruction under execution: the addresses of its lanes, and how to find what they mean.
pub(super) struct Accesses {
    pub(super) addresses: [u64; LANES],
    mask: u32,
    bytes: usize,
    access: Access,
    space: Space,
    /// One range that holds the accesses of all lanes, once it has been asked for.
    coalesced: Option<Option<Window>>,
}

impl Accesses {
    /// `b` of the instruction tells whether the base in `a` has 64 bits; `value` is the offset and `e` the space.
    #[inline(always)]
    pub(super) fn new(
        registers: &Registers,
        instruction: &Instruction,
        mask: u32,
        bytes: usize,
        access: Access,
    ) -> Self {
        let base = instruction.a as usize;
        let offset = instruction.value;
        let addresses = if instruction.b != 0 {
            registers.b64[base].map(|base| base.wrapping_add_signed(offset))
        } else {
            registers.b32[base].map(|base| u64::from(base.wrapping_add(offset as u32)))
        };
        Self { addresses, mask, bytes, access, space: Space::of(instruction.e), coalesced: None }
    }

    /// One lane's access of a byte at a generic address.
    pub(super) fn single(lane: usize, address: u64) -> Self {
        let mut addresses = [0; LANES];
        addresses[lane] = address;
        let (access, space) = (Access::Read, Space::Generic);
        Self { addresses, mask: 1 << lane, bytes: 1, access, space, coalesced: None }
    }

    /// Where one lane's bytes are: checked for bounds and alignment.
    #[inline(always)]
    pub(super) fn place(
        &mut self,
        context: &mut Context<'_>,
        local: usize,
        lane: usize,
    ) -> Result<Place, Cause> {
        let mut address = self.addresses[lane];
        let mut space = self.space;
        if address & (self.bytes as u64 - 1) != 0 {
            return Err(Cause::Misaligned { address, bytes: self.bytes });
        }
        if space == Space::Generic {
            space = match address & WINDOW_MASK {
                SHARED_BASE => Space::Shared,
                LOCAL_BASE => Space::Local,
                PARAMETER_BASE => Space::Parameter,
                _ => Space::Global,
            };
            if space != Space::Global {
                address &= !WINDOW_MASK;
            }
        }
        let limit = match space {
            Space::Generic | Space::Global => {
                if let Some(host) = context.windows.find(address, self.bytes, self.access) {
                    return Ok(Place::Host(host));
                }
                return self.ask(context, lane).map(Place::Host);
            }
            Space::Shared => context.shared.len(),
            Space::Local => local / LANES,
            Space::Parameter => context.launch.parameters.len(),
        };
        let fits =
            usize::try_from(address).ok().filter(|&at| limit >= self.bytes && at <= limit - self.bytes);
        let Some(at) = fits else {
            let reason = match space {
                Space::Shared => "outside the block's shared memory",
                Space::Local => "outside the thread's local memory",
                _ => "outside the kernel's parameters",
            };
            let (bytes, access) = (self.bytes, self.access);
            return Err(Cause::Memory(MemoryFault { address, bytes, access, reason }));
        };
        Ok(match space {
            Space::Shared => Place::Shared(at),
            Space::Local => Place::Local(lane * limit + at),
            _ => Place::Parameter(at),
        })
    }

    #[cold]
    fn ask(&mut self, context: &mut Context<'_>, lane: usize) -> Result<NonNull<u8>, Cause> {
        let address = self.addresses[lane];
        let memory = context.launch.memory;
        if let Some(host) = context.windows.ask(memory, address, self.bytes, self.access) {
            return Ok(host);
        }
        let coalesced = match self.coalesced {
            Some(asked) => asked,
            None => *self.coalesced.insert(self.coalesce(memory)),
        };
        if let Some(host) = coalesced.and_then(|window| inside(&window, address, self.bytes)) {
            return Ok(host);
        }
        memory.resolve(address, self.bytes, self.access).map_err(Cause::Memory)
    }

    /// The range of all lanes, if they access exactly one range without gaps and may.
    fn coalesce(&self, memory: &dyn DeviceMemory) -> Option<Window> {
        let mut lanes = active(self.mask).map(|lane| self.addresses[lane]);
        let first = lanes.next()?;
        let mut last = first;
        for address in lanes {
            if address != last && address != last.checked_add(self.bytes as u64)? {
                return None;
            }
            last = address;
        }
        let bytes = last - first + self.bytes as u64;
        let host = memory.resolve(first, usize::try_from(bytes).ok()?, self.access).ok()?;
        Some(Window { address: first, bytes, host })
    }
}
