//! How operations reach memory: every address is looked up, checked against who may access it, made ready, and, where
//! a check is on, reported.

use std::collections::HashSet;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use super::mapping::Mapping;
use super::space::{Snapshot, cover, find};
use crate::check::Stamp;
use crate::context::reachable;
use crate::lock;
use crate::machine::Machine;
use crate::ptx::{Access, DeviceMemory, MemoryFault, SurfacePlace, TexturePlace, Window};
use crate::sample;

/// What an operation wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// Use the bytes.
    Read,
    /// Pass them on; whether they were ever written does not matter yet.
    Move,
    /// Replace them.
    Write,
    /// Replace them; which of them count as written then is said by [`Accessor::pass_on_written`].
    Receive,
    /// Use and replace them.
    ReadWrite,
}

impl Intent {
    fn reads(self) -> bool {
        !matches!(self, Self::Write | Self::Receive)
    }

    fn uses(self) -> bool {
        matches!(self, Self::Read | Self::ReadWrite)
    }

    fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Receive | Self::ReadWrite)
    }
}

/// One operation's view of memory: the mappings at its start, which stay until it ends.
pub struct Accessor<'a> {
    machine: &'a Machine,
    snapshot: Arc<Snapshot>,
    who: &'a str,
    stamp: Option<&'a Stamp>,
    /// The device whose rights count; none for copies, which use those of any device.
    device: Option<usize>,
    /// Devices whose `cuMemAlloc` memory the device may access.
    reach: u64,
    reported: Mutex<HashSet<(&'static str, u64)>>,
}

impl<'a> Accessor<'a> {
    /// For a copy or the like; `who` names it in reports.
    pub fn for_copy(machine: &'a Machine, who: &'a str, stamp: Option<&'a Stamp>) -> Self {
        let snapshot = machine.space.snapshot();
        Self { machine, snapshot, who, stamp, device: None, reach: 0, reported: Mutex::default() }
    }

    /// For a kernel on `device`.
    pub fn for_kernel(machine: &'a Machine, who: &'a str, stamp: Option<&'a Stamp>, device: usize) -> Self {
        let reach = reachable(machine, device);
        Self { device: Some(device), reach, ..Self::for_copy(machine, who, stamp) }
    }

    fn is_allowed(&self, mapping: &Mapping, intent: Intent) -> bool {
        let Some(device) = self.device else { return mapping.is_plain() || mapping.is_accessible() };
        if mapping.is_plain() {
            return mapping.physical().is_some_and(|physical| self.reach >> physical.device & 1 == 1);
        }
        (!intent.reads() || mapping.may_read(device)) && (!intent.writes() || mapping.may_write(device))
    }

    /// The memory at `address`, ready for use, or why not.
    pub fn open(&self, address: u64, bytes: u64, intent: Intent) -> Result<NonNull<u8>, &'static str> {
        let Some(pieces) = cover(&self.snapshot, address, bytes.max(1)) else {
            let freed = self.machine.space.was_freed(address);
            return Err(if freed { "the memory there was freed" } else { "outside any allocation" });
        };
        let end = address + bytes;
        for piece in pieces {
            if !self.is_allowed(piece, intent) {
                return Err("the device has no access to this allocation");
            }
            let (from, to) = (address.max(piece.start), end.min(piece.end()));
            let offset = from - piece.start;
            if let Some(physical) = piece.physical() {
                physical.prepare(piece.base(), offset, to - from, !intent.reads());
                if let Some(written) = &physical.written {
                    if intent.uses() && !written.is_written(offset, to - from) {
                        self.report("uninitialised", "reads memory that was never written", piece, from);
                    }
                    if intent.writes() && intent != Intent::Receive {
                        written.mark(offset, to - from);
                    }
                }
            }
            if self.machine.config.checks.bounds && to > piece.start + piece.asked_bytes {
                self.report("bounds", "touches bytes behind the end of an allocation", piece, from);
            }
            if let Some(stamp) = self.stamp
                && intent.reads()
                && self.machine.writers.is_unordered(from, to, stamp)
            {
                self.report(
                    "unordered",
                    "reads what a copy writes without waiting for the copy",
                    piece,
                    from,
                );
            }
        }
        NonNull::new(std::ptr::with_exposed_provenance_mut(address as usize)).ok_or("a null address")
    }

    /// Passes on which bytes were written, for a copy within device memory.
    pub fn pass_on_written(&self, target: u64, source: u64, bytes: u64) {
        let lookup = |address: u64| find(&self.snapshot, address);
        for at in 0..bytes {
            let written = lookup(source + at).is_none_or(|piece| {
                let shadow = piece.physical().and_then(|physical| physical.written.as_ref());
                shadow.is_none_or(|shadow| shadow.is_written(source + at - piece.start, 1))
            });
            if let Some(piece) = lookup(target + at).filter(|_| written)
                && let Some(shadow) = piece.physical().and_then(|physical| physical.written.as_ref())
            {
                shadow.mark(target + at - piece.start, 1);
            }
        }
    }

    fn report(&self, check: &'static str, what: &str, mapping: &Mapping, address: u64) {
        if lock(&self.reported).insert((check, mapping.start)) {
            let offset = address - mapping.start;
            let (who, start, bytes) = (self.who, mapping.start, mapping.asked_bytes);
            self.machine.log.line(&format!(
                "check {check}: {who} {what}: {address:#x}, byte {offset} of {bytes} allocated at {start:#x}"
            ));
        }
    }
}

/// Device memory as a kernel sees it.
pub struct KernelMemory<'a>(pub Accessor<'a>);

fn intent_of(access: Access) -> Intent {
    match access {
        Access::Read => Intent::Read,
        Access::Write => Intent::Write,
        Access::Atomic => Intent::ReadWrite,
    }
}

impl DeviceMemory for KernelMemory<'_> {
    fn resolve(&self, address: u64, bytes: usize, access: Access) -> Result<NonNull<u8>, MemoryFault> {
        let opened = self.0.open(address, bytes as u64, intent_of(access));
        opened.map_err(|reason| MemoryFault { address, bytes, access, reason })
    }

    fn fetch(&self, texture: u64, place: &TexturePlace) -> Result<[u32; 4], MemoryFault> {
        sample::fetch(self.0.machine, &self.0, texture, place)
    }

    fn surface(
        &self,
        surface: u64,
        place: &SurfacePlace,
        access: Access,
    ) -> Result<Option<NonNull<u8>>, MemoryFault> {
        sample::surface(self.0.machine, surface, place, access)
    }

    fn window(&self, address: u64, access: Access) -> Option<Window> {
        if self.0.machine.config.checks.each_access() {
            return None;
        }
        let mapping = find(&self.0.snapshot, address)?;
        if !self.0.is_allowed(mapping, intent_of(access)) {
            return None;
        }
        let (from, to) = match mapping.physical() {
            Some(physical) => physical.ready_around(mapping.base(), address - mapping.start),
            None => (0, mapping.bytes),
        };
        let start = mapping.start + from;
        let host = NonNull::new(std::ptr::with_exposed_provenance_mut(start as usize))?;
        Some(Window { address: start, bytes: to - from, host })
    }
}
