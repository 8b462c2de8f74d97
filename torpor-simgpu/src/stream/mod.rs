//! Streams: queues of operations, and how work gets into them.

mod queue;
pub mod value;

use std::sync::Arc;

pub use queue::{Dependency, HEALTH_INTERVAL, Queue, StreamFlags};

use crate::abi::Out;
use crate::capture::{self, CaptureStatus};
use crate::context::{self, Context, GREATEST_PRIORITY};
use crate::device::ordinal_of;
use crate::error::{CudaError, Result};
use crate::lock;
use crate::machine::Machine;
use crate::operation::{HostFunction, Work};

/// `CU_STREAM_LEGACY`.
const LEGACY: u64 = 1;
/// `CU_STREAM_PER_THREAD`.
const PER_THREAD: u64 = 2;
/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;

/// The stream with this handle and the context it belongs to.
pub fn find(machine: &Machine, handle: u64) -> Result<(Arc<Context>, Arc<Queue>)> {
    let current = context::current(machine);
    match handle {
        0 | LEGACY => current.map(|context| (Arc::clone(&context), Arc::clone(&context.legacy))),
        PER_THREAD => current.map(|context| (Arc::clone(&context), context.thread_stream())),
        _ => {
            let queue = machine.streams.find(handle).inspect_err(|_| {
                if machine.config.checks.streams && machine.streams.was_issued(handle) {
                    machine
                        .log
                        .line(&format!("check streams: stream {handle:#x} is used after it was destroyed"));
                }
            })?;
            if queue.flags.green != 0 {
                let context = machine.contexts.find(queue.flags.green);
                return Ok((context.map_err(|_| CudaError::CONTEXT_IS_DESTROYED)?, queue));
            }
            // Work may be issued to a stream while another context is current.
            let primary = machine.devices.get(queue.device).map(|device| lock(&device.primary));
            let context =
                primary.and_then(|primary| primary.context.as_ref().map(|entry| Arc::clone(&entry.1)));
            Ok((context.ok_or(CudaError::INVALID_CONTEXT)?, queue))
        }
    }
}

/// Issues work to a stream, or records it if the stream is being captured. `waits_for` is what it waits for besides.
///
/// The sequence number in the stream; none while capturing.
pub fn enqueue(
    machine: &'static Machine,
    context: &Context,
    queue: &Arc<Queue>,
    work: Work,
    mut waits_for: Vec<Dependency>,
) -> Result<Option<u64>> {
    if capture::record(context, queue, &work)? {
        return Ok(None);
    }
    machine.health(Some(queue.device))?;
    if queue.flags.non_blocking {
        return Ok(Some(queue.submit(machine, work, waits_for)));
    }
    // Stream 0 and blocking streams wait for each other.
    let _submission = lock(&context.submission);
    if queue.flags.legacy {
        capture::refuse_implicit(context)?;
        waits_for.extend(lock(&context.blocking).iter().filter_map(|other| other.last_issued()));
    } else {
        waits_for.extend(context.legacy.last_issued());
    }
    Ok(Some(queue.submit(machine, work, waits_for)))
}

pub fn create(machine: &Machine, stream: Out<u64>, flags: u32, priority: i32) -> Result {
    let context = context::current(machine)?;
    create_in(machine, &context, stream, flags, priority)
}

/// Makes a stream of a context.
pub fn create_in(
    machine: &Machine,
    context: &Context,
    stream: Out<u64>,
    flags: u32,
    priority: i32,
) -> Result {
    if flags & !NON_BLOCKING != 0 || stream.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    let flags = StreamFlags {
        non_blocking: flags & NON_BLOCKING != 0,
        legacy: false,
        priority: priority.clamp(GREATEST_PRIORITY, 0),
        green: context.green(),
    };
    let queue = Queue::new(context.device, flags);
    if !flags.non_blocking {
        lock(&context.blocking).push(Arc::clone(&queue));
    }
    stream.set(machine.streams.add(queue))
}

pub fn destroy(machine: &Machine, handle: u64) -> Result {
    let (context, queue) = find(machine, handle)?;
    if handle <= PER_THREAD {
        return Err(CudaError::INVALID_HANDLE);
    }
    machine.streams.remove(handle)?;
    // What was issued still runs; the queue's thread keeps it alive.
    lock(&context.blocking).retain(|other| other.id != queue.id);
    Ok(())
}

pub fn query(machine: &Machine, handle: u64) -> Result {
    let (_, queue) = find(machine, handle)?;
    capture::refuse_captured(&queue)?;
    queue.query(machine)
}

pub fn synchronize(machine: &Machine, handle: u64) -> Result {
    let (context, queue) = find(machine, handle)?;
    if queue.flags.legacy {
        capture::refuse_implicit(&context)?;
    }
    capture::refuse_captured(&queue)?;
    queue.synchronize(machine)?;
    machine.printed.flush();
    Ok(())
}

pub fn wait_event(machine: &'static Machine, handle: u64, handle_of_event: u64, flags: u32) -> Result {
    let (context, queue) = find(machine, handle)?;
    let event = crate::event::find(machine, handle_of_event)?;
    if flags & !1 != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    if flags == 1 && capture::record_external(&context, &queue, handle_of_event, false)? {
        return Ok(());
    }
    if capture::join(&context, &queue, &event)? {
        return Ok(());
    }
    match event.recording() {
        None => Ok(()),
        Some(recording) => {
            enqueue(machine, &context, &queue, Work::Nothing, vec![Dependency::Recording(recording)])
                .map(drop)
        }
    }
}

pub fn is_capturing(machine: &Machine, handle: u64, status: Out<u32>) -> Result {
    let (context, queue) = find(machine, handle)?;
    if queue.flags.legacy {
        capture::refuse_implicit(&context)?;
    }
    status.set(match capture::status(&queue) {
        CaptureStatus::None => 0,
        CaptureStatus::Active => 1,
        CaptureStatus::Invalidated => 2,
    })
}

pub fn priority(machine: &Machine, handle: u64, priority: Out<i32>) -> Result {
    priority.set(find(machine, handle)?.1.flags.priority)
}

pub fn flags(machine: &Machine, handle: u64, flags: Out<u32>) -> Result {
    flags.set(u32::from(find(machine, handle)?.1.flags.non_blocking))
}

pub fn id(machine: &Machine, handle: u64, id: Out<u64>) -> Result {
    id.set(find(machine, handle)?.1.id)
}

pub fn device(machine: &Machine, handle: u64, device: Out<i32>) -> Result {
    device.set(ordinal_of(find(machine, handle)?.1.device))
}

pub fn context(machine: &Machine, handle: u64, context: Out<u64>) -> Result {
    context.set(find(machine, handle)?.0.id)
}

pub fn host_function(machine: &'static Machine, handle: u64, function: u64, argument: u64) -> Result {
    let (context, queue) = find(machine, handle)?;
    if function == 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    enqueue(machine, &context, &queue, Work::Host(HostFunction { function, argument }), Vec::new()).map(drop)
}
