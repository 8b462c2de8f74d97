//! `cuMemcpy…`: moving bytes between host and devices.

use std::sync::Arc;

use super::access::{Accessor, Intent};
use super::shape::{Shape, Side};
use super::space::{cover, find, touches};
use crate::abi::In;
use crate::array::Array;
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

/// What kind of memory a side is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Device(usize),
    Pinned,
    Pageable,
}

/// The arrays that target and source are, if they are.
pub type Arrays = [Option<Arc<Array>>; 2];

/// A copy.
#[derive(Debug)]
pub struct Copy {
    /// What and where.
    pub shape: Shape,
    target: Kind,
    source: Kind,
    route: Route,
    /// Arrays that the target and the source are.
    arrays: Arrays,
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
    match pieces.first().and_then(|piece| piece.physical()) {
        Some(physical) => Ok(Kind::Device(physical.device)),
        // From one piece of page-locked memory into the next (seen on an H200, driver 580).
        None if pieces.len() > 1 => Err(CudaError::INVALID_VALUE),
        None => Ok(Kind::Pinned),
    }
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
    issue_with(machine, shape, [None, None], demand, stream, wait)
}

/// As [`issue`], where sides may be arrays, in which they lie.
pub(super) fn issue_with(
    machine: &'static Machine,
    shape: Shape,
    arrays: Arrays,
    demand: Demand,
    stream: u64,
    wait: bool,
) -> Result {
    let (context, queue) = stream::find(machine, stream)?;
    if shape.bytes() == 0 {
        return Ok(());
    }
    let kind = |side: &Side, array: &Option<Arc<Array>>| match array {
        Some(array) => Ok(Kind::Device(array.device)),
        None => kind_of(machine, side.address, side.extent(&shape).ok_or(CudaError::INVALID_VALUE)?),
    };
    let [to, from] = &arrays;
    let (target, source) = (kind(&shape.target, to)?, kind(&shape.source, from)?);
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
    let copy = Copy { shape, target, source, route: route(target, source), arrays, staged };
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
        let open =
            |address: u64, kind: Kind, array: &Option<Arc<Array>>, intent: Intent| -> Result<*mut u8> {
                if let Some(array) = array {
                    let opened =
                        array.open(address, width, matches!(intent, Intent::Write | Intent::Receive));
                    return opened.ok_or_else(|| illegal_address(machine, "a copy", address, width));
                }
                if kind == Kind::Pageable {
                    return Ok(std::ptr::with_exposed_provenance_mut(address as usize));
                }
                let opened = accessor.open(address, width, intent);
                opened
                    .map(std::ptr::NonNull::as_ptr)
                    .map_err(|_| illegal_address(machine, "a copy", address, width))
            };
        let reading = if to_device { Intent::Move } else { Intent::Read };
        let passes_on = matches!(copy.source, Kind::Device(_))
            && to_device
            && machine.config.checks.uninitialised
            && copy.arrays.iter().all(Option::is_none);
        let from_memory = match &copy.staged {
            Some(staged) => staged.as_ptr(),
            None => open(from, copy.source, &copy.arrays[1], reading)?.cast_const(),
        };
        // Within devices, only what was written counts as written at the target, so it is not marked as a whole.
        let writing = if passes_on { Intent::Receive } else { Intent::Write };
        let to_memory = open(to, copy.target, &copy.arrays[0], writing)?;
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
