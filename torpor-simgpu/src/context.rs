//! Contexts: one per device, retained and released, and which one a thread has current.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use crate::abi::Out;
use crate::capture::Capture;
use crate::device::{are_peers, ordinal_of};
use crate::error::{CudaError, Result};
use crate::green::Part;
use crate::lock;
use crate::machine::{Machine, machine};
use crate::stream::{Queue, StreamFlags};

/// The greatest stream priority, numerically least.
pub const GREATEST_PRIORITY: i32 = -5;

/// A device's context.
#[derive(Debug)]
pub struct Context {
    /// The device it is on.
    pub device: usize,
    /// Its number, unique in the process.
    pub id: u64,
    /// The stream 0.
    pub legacy: Arc<Queue>,
    /// The streams that work in stream 0 waits for, and that wait for it.
    pub blocking: Mutex<Vec<Arc<Queue>>>,
    /// Held while work is ordered against stream 0.
    pub submission: Mutex<()>,
    /// Its multiprocessors, if it is a green one.
    pub part: Option<Part>,
    /// The captures under way.
    pub captures: Mutex<Vec<Arc<Capture>>>,
    per_thread: Mutex<HashMap<ThreadId, Arc<Queue>>>,
    peers: Mutex<HashSet<usize>>,
    limits: Mutex<[usize; 10]>,
}

thread_local! {
    /// Handles of the contexts that this thread has pushed; the last is current.
    static STACK: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

impl Context {
    /// One without work; a green one has a part of the multiprocessors.
    pub fn new(device: usize, id: u64, part: Option<Part>) -> Arc<Self> {
        let green = if part.is_some() { id } else { 0 };
        Arc::new(Self {
            device,
            id,
            part,
            legacy: Queue::new(device, StreamFlags { legacy: true, green, ..StreamFlags::default() }),
            blocking: Mutex::default(),
            submission: Mutex::default(),
            captures: Mutex::default(),
            per_thread: Mutex::default(),
            peers: Mutex::default(),
            // Stack, printf buffer, heap, depth, pending launches, L2 granularity, persisting L2, shared memory.
            limits: Mutex::new([1024, 1 << 20, 8 << 20, 2, 2048, 128, 0, 0, 0, 0]),
        })
    }

    /// The calling thread's default stream.
    pub fn thread_stream(&self) -> Arc<Queue> {
        let mut streams = lock(&self.per_thread);
        let make = || {
            let queue =
                Queue::new(self.device, StreamFlags { green: self.green(), ..StreamFlags::default() });
            lock(&self.blocking).push(Arc::clone(&queue));
            queue
        };
        Arc::clone(streams.entry(std::thread::current().id()).or_insert_with(make))
    }

    /// What its streams say of it: its handle if it is a green one.
    pub fn green(&self) -> u64 {
        if self.part.is_some() { self.id } else { 0 }
    }

    /// Its streams.
    pub fn queues(&self, machine: &Machine) -> Vec<Arc<Queue>> {
        let mut queues = machine.streams.all();
        queues.retain(|queue| queue.device == self.device && queue.flags.green == self.green());
        queues.extend(lock(&self.per_thread).values().cloned());
        queues.push(Arc::clone(&self.legacy));
        queues
    }

    /// Waits for everything issued to this context, to that of a device with its green ones.
    pub fn synchronize(&self, machine: &Machine) -> Result {
        let is_its =
            |other: &Self| self.part.is_none() && other.part.is_some() && other.device == self.device;
        let greens = machine.contexts.all().into_iter().filter(|other| is_its(other));
        let of_greens = greens.flat_map(|green| green.queues(machine));
        for queue in self.queues(machine).into_iter().chain(of_greens) {
            queue.synchronize(machine)?;
        }
        machine.health(Some(self.device))
    }
}

/// Waits for everything issued to a device's context, if there is one.
pub fn synchronize_primary(machine: &Machine, device: usize) -> Result {
    let context = machine
        .devices
        .get(device)
        .and_then(|device| Some(lock(&device.primary).context.as_ref()?.1.clone()));
    context.map_or(Ok(()), |context| context.synchronize(machine))
}

/// The device of the calling thread's current context.
pub fn current_device() -> Option<usize> {
    let handle = STACK.with_borrow(|stack| stack.last().copied())?;
    machine().ok()?.contexts.find(handle).ok().map(|context| context.device)
}

/// The calling thread's current context.
pub fn current(machine: &Machine) -> Result<Arc<Context>> {
    let handle = STACK.with_borrow(|stack| stack.last().copied().unwrap_or(0));
    if handle == 0 {
        return Err(CudaError::INVALID_CONTEXT);
    }
    machine.contexts.find(handle).map_err(|_| CudaError::CONTEXT_IS_DESTROYED)
}

/// The context with this handle.
pub fn find(machine: &Machine, handle: u64) -> Result<Arc<Context>> {
    machine.contexts.find(handle).map_err(|_| CudaError::INVALID_CONTEXT)
}

/// The context with this handle; the current one for 0.
pub fn find_or_current(machine: &Machine, handle: u64) -> Result<Arc<Context>> {
    if handle == 0 { current(machine) } else { find(machine, handle) }
}

pub fn retain_primary(machine: &Machine, context: Out<u64>, device: i32) -> Result {
    let ordinal = machine.device(device)?.ordinal;
    if context.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    context.set(hold_primary(machine, ordinal)?)
}

/// Retains a device's primary context. Its handle.
pub fn hold_primary(machine: &Machine, ordinal: usize) -> Result<u64> {
    let device = machine.devices.get(ordinal).ok_or(CudaError::INVALID_DEVICE)?;
    machine.health(Some(device.ordinal))?;
    let mut primary = lock(&device.primary);
    let handle = match &primary.context {
        Some((handle, _)) => *handle,
        None => {
            machine.clock.host_works(machine.config.profile.context_us);
            let (handle, made) =
                machine.contexts.add_with(|handle| Context::new(device.ordinal, handle, None));
            primary.context = Some((handle, made));
            handle
        }
    };
    primary.retained += 1;
    Ok(handle)
}

pub fn release_primary(machine: &Machine, device: i32) -> Result {
    let device = machine.device(device)?;
    let mut primary = lock(&device.primary);
    primary.retained = primary.retained.checked_sub(1).ok_or(CudaError::INVALID_CONTEXT)?;
    if primary.retained > 0 {
        return Ok(());
    }
    let Some((handle, context)) = primary.context.take() else { return Ok(()) };
    drop(primary);
    let finished = context.synchronize(machine);
    drop(machine.contexts.remove(handle));
    machine.streams.remove_all(|queue| queue.device == context.device);
    machine.modules.remove_all(|module| module.device == context.device);
    machine.functions.remove_all(|function| function.module.device == context.device);
    crate::memory::free_all(machine, context.device);
    finished
}

pub fn primary_state(machine: &Machine, device: i32, flags: Out<u32>, active: Out<i32>) -> Result {
    let primary = lock(&machine.device(device)?.primary);
    flags.set_if_wanted(primary.flags);
    active.set_if_wanted(i32::from(primary.context.is_some()));
    Ok(())
}

pub fn set_current(machine: &Machine, handle: u64) -> Result {
    if handle != 0 {
        find(machine, handle)?;
    }
    STACK.with_borrow_mut(|stack| {
        stack.pop();
        if handle != 0 {
            stack.push(handle);
        }
    });
    Ok(())
}

pub fn get_current(context: Out<u64>) -> Result {
    context.set(STACK.with_borrow(|stack| stack.last().copied().unwrap_or(0)))
}

pub fn push(machine: &Machine, handle: u64) -> Result {
    find(machine, handle)?;
    STACK.with_borrow_mut(|stack| stack.push(handle));
    Ok(())
}

pub fn pop(context: Out<u64>) -> Result {
    let handle = STACK.with_borrow_mut(Vec::pop).ok_or(CudaError::INVALID_CONTEXT)?;
    context.set_if_wanted(handle);
    Ok(())
}

pub fn device(machine: &Machine, device: Out<i32>, context: u64) -> Result {
    device.set(ordinal_of(find_or_current(machine, context)?.device))
}

pub fn id(machine: &Machine, context: u64, id: Out<u64>) -> Result {
    id.set(find_or_current(machine, context)?.id)
}

pub fn synchronize(machine: &Machine, context: u64) -> Result {
    let context = find_or_current(machine, context)?;
    if !lock(&context.captures).is_empty() {
        crate::capture::invalidate_all(&context);
        return Err(CudaError::STREAM_CAPTURE_UNSUPPORTED);
    }
    context.synchronize(machine)?;
    machine.printed.flush();
    Ok(())
}

fn limit_index(limit: u32) -> Result<usize> {
    usize::try_from(limit).ok().filter(|&index| index < 10).ok_or(CudaError::UNSUPPORTED_LIMIT)
}

pub fn get_limit(machine: &Machine, value: Out<usize>, limit: u32) -> Result {
    value.set(lock(&current(machine)?.limits)[limit_index(limit)?])
}

pub fn set_limit(machine: &Machine, limit: u32, value: usize) -> Result {
    lock(&current(machine)?.limits)[limit_index(limit)?] = value;
    Ok(())
}

pub fn priority_range(machine: &Machine, least: Out<i32>, greatest: Out<i32>) -> Result {
    current(machine)?;
    least.set_if_wanted(0);
    greatest.set_if_wanted(GREATEST_PRIORITY);
    Ok(())
}

pub fn enable_peer_access(machine: &Machine, peer: u64, flags: u32) -> Result {
    let (context, peer) = (current(machine)?, find(machine, peer)?);
    if flags != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    if !are_peers(machine, context.device, peer.device) {
        return Err(CudaError::PEER_ACCESS_UNSUPPORTED);
    }
    if !lock(&context.peers).insert(peer.device) {
        return Err(CudaError::PEER_ACCESS_ALREADY_ENABLED);
    }
    Ok(())
}

pub fn disable_peer_access(machine: &Machine, peer: u64) -> Result {
    let (context, peer) = (current(machine)?, find(machine, peer)?);
    if lock(&context.peers).remove(&peer.device) { Ok(()) } else { Err(CudaError::PEER_ACCESS_NOT_ENABLED) }
}

/// The devices whose `cuMemAlloc` memory a device's kernels may access, as a bit mask: itself and enabled peers.
pub fn reachable(machine: &Machine, device: usize) -> u64 {
    let Some(primary) = machine.devices.get(device).map(|device| &device.primary) else { return 0 };
    let peers =
        lock(primary).context.as_ref().map(|context| lock(&context.1.peers).clone()).unwrap_or_default();
    peers.into_iter().fold(1 << device, |mask, peer| mask | 1 << peer)
}
