//! Green contexts: contexts with a part of the multiprocessors, and the parts themselves.
//!
//! Multiprocessors are numbered, and a part has the lowest numbers that are left. A part can be split if it is a whole context's.

use std::sync::Arc;

use crate::abi::{DevResource, In, Out};
use crate::context::{self, Context};
use crate::error::{CudaError, Result};
use crate::lock;
use crate::machine::Machine;
use crate::operation::Work;
use crate::stream::{self, Dependency, Queue};

/// `CU_DEV_RESOURCE_TYPE_SM`.
const MULTIPROCESSORS: u32 = 1;
/// `CU_GREEN_CTX_DEFAULT_STREAM`, `CU_STREAM_NON_BLOCKING`.
const REQUIRED: u32 = 1;
/// `CU_DEV_SM_RESOURCE_SPLIT_IGNORE_SM_COSCHEDULING`.
const IGNORE_COSCHEDULING: u32 = 1;
/// That and `CU_DEV_SM_RESOURCE_SPLIT_MAX_POTENTIAL_CLUSTER_SIZE`.
const ALL_FLAGS: u32 = 3;

/// A set of a device's multiprocessors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    device: u32,
    /// A bit for each.
    set: [u32; 8],
}

impl Part {
    fn of(device: usize, numbers: impl IntoIterator<Item = u32>) -> Self {
        let mut set = [0; 8];
        numbers.into_iter().for_each(|number| set[number as usize / 32 % 8] |= 1 << (number % 32));
        Self { device: device as u32, set }
    }

    /// The numbers of its multiprocessors.
    pub fn numbers(&self) -> Vec<u32> {
        (0..256).filter(|&number| self.set[number as usize / 32] >> (number % 32) & 1 != 0).collect()
    }
}

/// All of a device's.
fn whole(machine: &Machine, device: usize) -> Part {
    Part::of(device, 0..machine.config.profile.architecture.multiprocessors.unsigned_abs())
}

/// The least that a part has, and what it is a multiple of (cuda.h, "Green Contexts").
fn granularity(machine: &Machine, flags: u32) -> (u32, u32) {
    match machine.config.profile.architecture.capability.0 {
        9.. if flags & IGNORE_COSCHEDULING == 0 => (8, 8),
        8 if flags & IGNORE_COSCHEDULING == 0 => (4, 2),
        _ => (2, 2),
    }
}

/// A part as a program has it; `split` says which split it is of, 0 for a whole context's.
fn resource(machine: &Machine, part: &Part, split: u32) -> DevResource {
    let (least, alignment) = granularity(machine, 0);
    let count = part.numbers().len() as u32;
    let kind = if count == 0 { 0 } else { MULTIPROCESSORS };
    let Part { device, set } = *part;
    DevResource { kind, device, split, set, count, least, alignment, ..DevResource::default() }
}

fn part_of(resource: &DevResource) -> Result<Part> {
    match resource.kind {
        MULTIPROCESSORS => Ok(Part { device: resource.device, set: resource.set }),
        _ => Err(CudaError::INVALID_RESOURCE_TYPE),
    }
}

fn check_kind(kind: u32) -> Result {
    if kind == MULTIPROCESSORS { Ok(()) } else { Err(CudaError::INVALID_RESOURCE_TYPE) }
}

pub fn of_device(machine: &Machine, device: i32, out: Out<DevResource>, kind: u32) -> Result {
    let device = machine.device(device)?.ordinal;
    check_kind(kind)?;
    out.set(resource(machine, &whole(machine, device), 0))
}

pub fn of_context(machine: &Machine, handle: u64, out: Out<DevResource>, kind: u32) -> Result {
    // Elsewhere no context is the current one; driver 580 of an H200 wants one here.
    let context = context::find(machine, handle)?;
    check_kind(kind)?;
    out.set(resource(machine, &part_of_context(machine, &context), 0))
}

pub fn of_green(machine: &Machine, green: u64, out: Out<DevResource>, kind: u32) -> Result {
    of_context(machine, find(machine, green)?.id, out, kind)
}

/// The multiprocessors of a context.
pub fn part_of_context(machine: &Machine, context: &Context) -> Part {
    context.part.unwrap_or_else(|| whole(machine, context.device))
}

pub fn split(
    machine: &Machine,
    found: Out<DevResource>,
    count: Out<u32>,
    of: In<DevResource>,
    rest: Out<DevResource>,
    (flags, least): (u32, u32),
) -> Result {
    let (of, wanted) = (of.get()?, count.get()?);
    let part = part_of(&of)?;
    let numbers = part.numbers();
    if flags & !ALL_FLAGS != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    // So says driver 580 of an H200.
    if of.split != 0 || least as usize > numbers.len() {
        return Err(CudaError::INVALID_RESOURCE_CONFIGURATION);
    }
    let (minimum, alignment) = granularity(machine, flags);
    let each = least.next_multiple_of(alignment).max(minimum) as usize;
    let possible = (numbers.len() / each) as u32;
    if found.is_null() {
        return count.set(possible);
    }
    let groups = wanted.min(possible) as usize;
    if groups == 0 {
        return Err(CudaError::INVALID_RESOURCE_CONFIGURATION);
    }
    let split = machine.next_split();
    let part = |numbers: &[u32]| Part::of(part.device as usize, numbers.iter().copied());
    let parts = numbers.chunks(each).take(groups).map(|numbers| resource(machine, &part(numbers), split));
    found.set_all(wanted as usize, parts)?;
    rest.set_if_wanted(resource(machine, &part(&numbers[groups * each..]), split));
    count.set(groups as u32)
}

pub fn describe(machine: &Machine, out: Out<u64>, resources: In<DevResource>, count: u32) -> Result {
    let resources = resources.array(count as usize)?;
    let first = resources.first().ok_or(CudaError::INVALID_VALUE)?;
    let mut all = part_of(first)?;
    for resource in &resources[1..] {
        let part = part_of(resource)?;
        if part.device != all.device || resource.split != first.split || first.split == 0 {
            return Err(CudaError::INVALID_RESOURCE_CONFIGURATION);
        }
        all.set.iter_mut().zip(part.set).for_each(|(word, other)| *word |= other);
    }
    out.set(machine.descriptions.add(Arc::new(all)))
}

fn find(machine: &Machine, green: u64) -> Result<Arc<Context>> {
    machine.greens.find(green).map_err(|_| CudaError::INVALID_CONTEXT)
}

pub fn create(machine: &Machine, out: Out<u64>, description: u64, device: i32, flags: u32) -> Result {
    let part = *machine.descriptions.find(description).map_err(|_| CudaError::INVALID_VALUE)?;
    let device = machine.device(device)?.ordinal;
    if flags != REQUIRED || part.device as usize != device || out.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    context::hold_primary(machine, device)?;
    let (_, context) = machine.contexts.add_with(|handle| Context::new(device, handle, Some(part)));
    out.set(machine.greens.add(context))
}

/// Its streams stay as they are, and are of no use any more.
pub fn destroy(machine: &Machine, green: u64) -> Result {
    let context = machine.greens.remove(green).map_err(|_| CudaError::INVALID_CONTEXT)?;
    machine.contexts.remove(context.id)?;
    context::release_primary(machine, context.device as i32)
}

pub fn to_context(machine: &Machine, out: Out<u64>, green: u64) -> Result {
    out.set(find(machine, green)?.id)
}

pub fn id(machine: &Machine, green: u64, out: Out<u64>) -> Result {
    let context = if green == 0 { context::current(machine)? } else { find(machine, green)? };
    if context.part.is_some() { out.set(context.id) } else { Err(CudaError::INVALID_CONTEXT) }
}

pub fn of_stream(machine: &Machine, stream: u64, out: Out<u64>) -> Result {
    let (context, _) = stream::find(machine, stream)?;
    out.set(machine.greens.handle_of(&context).unwrap_or(0))
}

pub fn create_stream(machine: &Machine, out: Out<u64>, green: u64, flags: u32, priority: i32) -> Result {
    let context = find(machine, green)?;
    if flags != REQUIRED {
        return Err(CudaError::INVALID_VALUE);
    }
    stream::create_in(machine, &context, out, flags, priority)
}

/// Records an event behind all work of a context, those of a device with its green ones'.
pub fn record(machine: &'static Machine, context: &Arc<Context>, event: u64) -> Result {
    let queues = queues(machine, context)?;
    let behind = queues.iter().filter_map(Queue::last_issued).collect();
    let all = Queue::new(context.device, stream::StreamFlags { non_blocking: true, ..Default::default() });
    all.submit(machine, Work::Nothing, behind);
    let handle = machine.streams.add(all);
    let recorded = crate::event::record(machine, event, handle, 0);
    machine.streams.remove(handle)?;
    recorded
}

/// Has all work of a context that is issued later to streams that there are wait for an event.
pub fn wait(machine: &'static Machine, context: &Arc<Context>, event: u64) -> Result {
    let Some(recording) = crate::event::find(machine, event)?.recording() else { return Ok(()) };
    for queue in queues(machine, context)? {
        queue.submit(machine, Work::Nothing, vec![Dependency::Recording(recording.clone())]);
    }
    Ok(())
}

fn queues(machine: &Machine, context: &Context) -> Result<Vec<Arc<Queue>>> {
    let is_its = |other: &Context| match context.part {
        None => other.device == context.device,
        Some(_) => other.id == context.id,
    };
    let contexts: Vec<_> = machine.contexts.all().into_iter().filter(|other| is_its(other)).collect();
    if contexts.iter().any(|context| !lock(&context.captures).is_empty()) {
        contexts.iter().for_each(|context| crate::capture::invalidate_all(context));
        return Err(CudaError::STREAM_CAPTURE_UNSUPPORTED);
    }
    Ok(contexts.iter().flat_map(|context| context.queues(machine)).collect())
}

pub fn record_in(machine: &'static Machine, green: u64, event: u64) -> Result {
    record(machine, &find(machine, green)?, event)
}

pub fn wait_in(machine: &'static Machine, green: u64, event: u64) -> Result {
    wait(machine, &find(machine, green)?, event)
}
