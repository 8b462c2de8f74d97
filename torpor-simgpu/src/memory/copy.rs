//! `cuMemcpy…`: moving bytes, in one, two or three dimensions, between host and devices.

use std::sync::Arc;

use super::access::{Accessor, Intent};
use super::space::{cover, find, touches};
use crate::abi::{In, Memcpy2d, Memcpy3d};
use crate::capture::{self, CaptureStatus};
use crate::clock::{Route, copy_cost};
use crate::context;
use crate::engine::Engine;
use crate::error::{CudaError, Result};
use crate::machine::Machine;
use crate::operation::{Place, Work, illegal_address, spend};
use crate::stream;

/// A pageable source of up to this many bytes is read when the copy is issued; a larger one before the call returns.
const STAGED_BYTES: u64 = 64 << 10;

/// One side of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Side {
    /// Where it starts.
    pub address: u64,
    /// From one row to the next.
    pub pitch: u64,
    /// From one slice to the next.
    pub slice: u64,
}

/// What is copied where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// To where.
    pub target: Side,
    /// From where.
    pub source: Side,
    /// Bytes of a row.
    pub width: u64,
    /// Rows of a slice.
    pub rows: u64,
    /// Slices.
    pub slices: u64,
}

impl Side {
    /// Bytes from the start to the end of the last row, if that can be said.
    fn extent(&self, shape: &Shape) -> Option<u64> {
        let rows = shape.rows.checked_sub(1)?.checked_mul(self.pitch)?;
        let slices = shape.slices.checked_sub(1)?.checked_mul(self.slice)?;
        let extent = rows.checked_add(slices)?.checked_add(shape.width)?;
        self.address.checked_add(extent)?;
        Some(extent)
    }

    fn row(&self, slice: u64, row: u64) -> u64 {
        self.address + slice * self.slice + row * self.pitch
    }
}

impl Shape {
    /// `bytes` in a line.
    pub fn line(target: u64, source: u64, bytes: u64) -> Self {
        let side = |address| Side { address, pitch: bytes, slice: bytes };
        Self { target: side(target), source: side(source), width: bytes, rows: 1, slices: 1 }
    }

    fn bytes(&self) -> u64 {
        self.width.saturating_mul(self.rows).saturating_mul(self.slices)
    }

    fn rows(&self) -> impl Iterator<Item = (u64, u64)> {
        let rows = self.rows;
        (0..self.slices).flat_map(move |slice| (0..rows).map(move |row| (slice, row)))
    }

    /// Calls `visit` with start and length of every row that is written.
    pub fn each_target_row(&self, mut visit: impl FnMut(u64, u64)) {
        self.rows().for_each(|(slice, row)| visit(self.target.row(slice, row), self.width));
    }
}

/// What kind of memory a side is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Device(usize),
    Pinned,
    Pageable,
}

/// A copy.
#[derive(Debug)]
pub struct Copy {
    /// What and where.
    pub shape: Shape,
    target: Kind,
    source: Kind,
    route: Route,
    /// The source's bytes, where they were read when the copy was issued.
    staged: Option<Vec<u8>>,
}

impl Copy {
    /// The copy engine that it needs.
    pub fn engine(&self) -> Option<Engine> {
        Engine::of(self.route)
    }
}

/// What kind of memory a range is; an error if it is partly or wholly memory that must not be used.
fn kind_of(machine: &Machine, address: u64, extent: u64) -> Result<Kind> {
    let snapshot = machine.space.snapshot();
    if !touches(&snapshot, address, extent) {
        return Ok(Kind::Pageable);
    }
    let pieces = cover(&snapshot, address, extent);
    // Registered memory need not be registered to its end for a copy to be right.
    let Some(pieces) = pieces else {
        let host = find(&snapshot, address).is_none_or(|first| first.physical().is_none());
        return if host { Ok(Kind::Pageable) } else { Err(CudaError::INVALID_VALUE) };
    };
    if pieces.iter().any(|piece| !piece.is_plain() && !piece.is_accessible()) {
        return Err(CudaError::INVALID_VALUE);
    }
    Ok(match pieces.first().and_then(|piece| piece.physical()) {
        Some(physical) => Kind::Device(physical.device),
        None => Kind::Pinned,
    })
}

/// Whether a range is memory that devices know.
pub fn is_device_memory(machine: &Machine, address: u64, extent: u64) -> bool {
    address.checked_add(extent).is_some()
        && matches!(kind_of(machine, address, extent), Ok(Kind::Device(_) | Kind::Pinned))
}

fn route(target: Kind, source: Kind) -> Route {
    match (source, target) {
        (Kind::Device(from), Kind::Device(to)) if from == to => Route::Device(to),
        (Kind::Device(from), Kind::Device(to)) => Route::Peer(from, to),
        (Kind::Device(device), host) => Route::DeviceToHost { device, pinned: host == Kind::Pinned },
        (host, Kind::Device(device)) => Route::HostToDevice { device, pinned: host == Kind::Pinned },
        _ => Route::Host,
    }
}

/// What the caller says about the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// The target must be memory that devices know.
    TargetOnDevice,
    /// The source must be.
    SourceOnDevice,
    /// Both must be.
    BothOnDevice,
    /// Anything goes.
    Any,
}

/// Checks and issues a copy; `wait` is for the synchronous functions.
pub fn issue(machine: &'static Machine, shape: Shape, demand: Demand, stream: u64, wait: bool) -> Result {
    let (context, queue) = stream::find(machine, stream)?;
    if shape.bytes() == 0 {
        return Ok(());
    }
    let kind =
        |side: &Side| kind_of(machine, side.address, side.extent(&shape).ok_or(CudaError::INVALID_VALUE)?);
    let (target, source) = (kind(&shape.target)?, kind(&shape.source)?);
    let wrong = match demand {
        Demand::TargetOnDevice => target == Kind::Pageable,
        Demand::SourceOnDevice => source == Kind::Pageable,
        Demand::BothOnDevice => target == Kind::Pageable || source == Kind::Pageable,
        Demand::Any => false,
    };
    if wrong || shape.target.address == 0 || shape.source.address == 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let is_line = shape.rows == 1 && shape.slices == 1;
    // A graph reads its source whenever it is launched.
    let stage = source == Kind::Pageable
        && is_line
        && shape.width <= STAGED_BYTES
        && capture::status(&queue) == CaptureStatus::None;
    let staged = stage.then(|| In::<u8>::at(shape.source.address).array(shape.width as usize)).transpose()?;
    let pageable = (source == Kind::Pageable && !stage) || target == Kind::Pageable;
    let copy = Copy { shape, target, source, route: route(target, source), staged };
    let work = Work::Copy(Arc::new(copy));
    let sequence = stream::enqueue(machine, &context, &queue, work, Vec::new())?;
    // The caller may reuse pageable memory as soon as the call returns.
    match sequence {
        Some(sequence) if wait || pageable => {
            queue.wait_as_host(machine, sequence)?;
            machine.printed.flush();
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Copies.
pub fn execute(machine: &Machine, copy: &Copy, place: &Place) -> Result<u64> {
    let accessor = Accessor::for_copy(machine, "a copy", place.stamp.as_ref());
    let Shape { target, source, width, .. } = copy.shape;
    let to_device = matches!(copy.target, Kind::Device(_));
    for (slice, row) in copy.shape.rows() {
        let (to, from) = (target.row(slice, row), source.row(slice, row));
        let open = |address: u64, kind: Kind, intent: Intent| -> Result<*mut u8> {
            if kind == Kind::Pageable {
                return Ok(std::ptr::with_exposed_provenance_mut(address as usize));
            }
            let opened = accessor.open(address, width, intent);
            opened
                .map(std::ptr::NonNull::as_ptr)
                .map_err(|_| illegal_address(machine, "a copy", address, width))
        };
        let reading = if to_device { Intent::Move } else { Intent::Read };
        let passes_on =
            matches!(copy.source, Kind::Device(_)) && to_device && machine.config.checks.uninitialised;
        let from_memory = match &copy.staged {
            Some(staged) => staged.as_ptr(),
            None => open(from, copy.source, reading)?.cast_const(),
        };
        // Within devices, only what was written counts as written at the target, so it is not marked as a whole.
        let writing = if passes_on { Intent::Receive } else { Intent::Write };
        let to_memory = open(to, copy.target, writing)?;
        // SAFETY: `open` returned memory of `width` bytes that the accessor keeps mapped, a staged source has `width`
        // bytes, and pageable memory is promised by the caller until the call that issued the copy returns.
        unsafe { std::ptr::copy(from_memory, to_memory, width as usize) };
        if passes_on {
            accessor.pass_on_written(to, from, width);
        }
    }
    if let Some(engine) = copy.engine() {
        machine.engines.enter(machine, engine, place)?;
    }
    let (resources, duration) = copy_cost(&machine.config.profile, copy.route, copy.shape.bytes());
    Ok(spend(machine, &resources, place, duration))
}

/// Copies between devices name contexts; the addresses already say where the bytes are.
pub fn peer(
    machine: &'static Machine,
    target: (u64, u64),
    source: (u64, u64),
    bytes: usize,
    stream: u64,
) -> Result {
    context::find_or_current(machine, target.1)?;
    context::find_or_current(machine, source.1)?;
    issue(machine, Shape::line(target.0, source.0, bytes as u64), Demand::BothOnDevice, stream, false)
}

/// `CU_MEMORYTYPE_HOST`, `…_DEVICE`, `…_UNIFIED`.
fn address_of(kind: u32, host: u64, device: u64) -> Result<u64> {
    match kind {
        1 => Ok(host),
        2 | 4 => Ok(device),
        // Arrays are not simulated.
        _ => Err(CudaError::NOT_SUPPORTED),
    }
}

fn demand(target: u32, source: u32) -> Demand {
    match (target, source) {
        (2, 2) => Demand::BothOnDevice,
        (2, _) => Demand::TargetOnDevice,
        (_, 2) => Demand::SourceOnDevice,
        _ => Demand::Any,
    }
}

fn side(address: u64, pitch: usize, height: usize, x: usize, y: usize, z: usize) -> Option<Side> {
    let (pitch, height) = (pitch as u64, height as u64);
    let slice = pitch.checked_mul(height)?;
    let offset =
        (z as u64).checked_mul(slice)?.checked_add((y as u64).checked_mul(pitch)?)?.checked_add(x as u64)?;
    Some(Side { address: address.checked_add(offset)?, pitch, slice })
}

pub fn two_dimensional(machine: &'static Machine, copy: In<Memcpy2d>, stream: u64) -> Result {
    let copy = copy.get()?;
    let source = address_of(copy.src_type, copy.src_host, copy.src_device)?;
    let target = address_of(copy.dst_type, copy.dst_host, copy.dst_device)?;
    let (width, rows) = (copy.width_bytes as u64, copy.height as u64);
    let narrow = |pitch: usize| (pitch as u64) < width && rows > 1;
    if narrow(copy.src_pitch) || narrow(copy.dst_pitch) {
        return Err(CudaError::INVALID_VALUE);
    }
    let source = side(source, copy.src_pitch, copy.height, copy.src_x_bytes, copy.src_y, 0);
    let target = side(target, copy.dst_pitch, copy.height, copy.dst_x_bytes, copy.dst_y, 0);
    let (source, target) = (source.ok_or(CudaError::INVALID_VALUE)?, target.ok_or(CudaError::INVALID_VALUE)?);
    let shape = Shape { target, source, width, rows, slices: 1 };
    issue(machine, shape, demand(copy.dst_type, copy.src_type), stream, false)
}

pub fn three_dimensional(machine: &'static Machine, copy: In<Memcpy3d>, stream: u64) -> Result {
    let copy = copy.get()?;
    if copy.src_lod != 0 || copy.dst_lod != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let source = address_of(copy.src_type, copy.src_host, copy.src_device)?;
    let target = address_of(copy.dst_type, copy.dst_host, copy.dst_device)?;
    let (width, rows, slices) = (copy.width_bytes as u64, copy.height as u64, copy.depth as u64);
    let narrow = |pitch: usize, height: usize| {
        ((pitch as u64) < width && (rows > 1 || slices > 1)) || ((height as u64) < rows && slices > 1)
    };
    if narrow(copy.src_pitch, copy.src_height) || narrow(copy.dst_pitch, copy.dst_height) {
        return Err(CudaError::INVALID_VALUE);
    }
    let source = side(source, copy.src_pitch, copy.src_height, copy.src_x_bytes, copy.src_y, copy.src_z);
    let target = side(target, copy.dst_pitch, copy.dst_height, copy.dst_x_bytes, copy.dst_y, copy.dst_z);
    let (source, target) = (source.ok_or(CudaError::INVALID_VALUE)?, target.ok_or(CudaError::INVALID_VALUE)?);
    let shape = Shape { target, source, width, rows, slices };
    issue(machine, shape, demand(copy.dst_type, copy.src_type), stream, false)
}
