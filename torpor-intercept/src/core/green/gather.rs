//! Events of whole contexts (`cuCtxRecordEvent`, `cuCtxWaitEvent`): made of what streams have. A context that needs it has a *hub*, a stream
//! without work of its own, which waits for all of its streams before an event is recorded there, and for each event that the whole context
//! waits for: streams that are made later come behind the hub.

use super::super::event::{DISABLE_TIMING, Event};
use super::super::{CudaResult, Stream, client};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use torpor_proto::command::includes;
use torpor_proto::error::CudaError;

/// `CU_STREAM_NON_BLOCKING`
const NON_BLOCKING: u32 = 1;

#[derive(Clone, Copy)]
struct Hub {
    stream: &'static Stream,
    /// Recorded in one stream after the other, for the hub to wait for.
    joint: &'static Event,
    /// Recorded in the hub when it waits for something that later streams have to wait for.
    gate: &'static Event,
}

static HUBS: Mutex<BTreeMap<u32, Hub>> = Mutex::new(BTreeMap::new());

/// Whether any context has waited for an event.
static HAVE_WAITED: AtomicBool = AtomicBool::new(false);

fn hubs() -> MutexGuard<'static, BTreeMap<u32, Hub>> {
    HUBS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The hub of a context. Made without the lock, which whoever makes a stream takes.
fn hub(place: u32) -> CudaResult<Hub> {
    let known = hubs().get(&place).copied();
    if let Some(hub) = known {
        return Ok(hub);
    }
    let stream = Stream::create_in(place, NON_BLOCKING, 0)?;
    let [joint, gate] = [Event::create(DISABLE_TIMING)?, Event::create(DISABLE_TIMING)?];
    // Of two that are made at once one is not used.
    Ok(*hubs().entry(place).or_insert(Hub { stream, joint, gate }))
}

/// The streams of a context that is not captured: what is asked of all of them would be asked of the capture, and spoils it.
fn uncaptured(place: u32) -> CudaResult<Vec<&'static Stream>> {
    let streams: Vec<_> = Stream::of_context(place).collect();
    let captures: Vec<_> = streams.iter().filter_map(|stream| stream.capture()).collect();
    if captures.is_empty() {
        return Ok(streams);
    }
    captures.iter().for_each(|capture| capture.invalidate());
    Err(CudaError::STREAM_CAPTURE_UNSUPPORTED)
}

/// `cuCtxRecordEvent`, of a context's number for workers.
///
/// # Errors
/// `STREAM_CAPTURE_UNSUPPORTED`, or what posting gives.
pub fn record(place: u32, event: &'static Event) -> CudaResult<()> {
    client()?;
    let hub = hub(place)?;
    let _one_at_a_time = hubs();
    for stream in uncaptured(place)? {
        if stream.number != hub.stream.number && !stream.is_done_up_to(stream.position()) {
            hub.joint.record(stream, 0)?;
            hub.stream.wait_event(hub.joint, 0)?;
        }
    }
    event.record(hub.stream, 0)
}

/// `cuCtxWaitEvent`, of a context's number for workers.
///
/// # Errors
/// `STREAM_CAPTURE_UNSUPPORTED`, also for an event of a capture, or what posting gives.
pub fn wait(place: u32, event: &'static Event) -> CudaResult<()> {
    client()?;
    if let Some((capture, _)) = event.captured() {
        capture.invalidate();
        return Err(CudaError::STREAM_CAPTURE_UNSUPPORTED);
    }
    let hub = hub(place)?;
    // Before the streams are gone over: who makes one meanwhile waits for the gate.
    HAVE_WAITED.store(true, Ordering::SeqCst);
    let _one_at_a_time = hubs();
    hub.stream.wait_event(event, 0)?;
    hub.gate.record(hub.stream, 0)?;
    for stream in uncaptured(place)? {
        stream.wait_event(event, 0)?;
    }
    Ok(())
}

/// A stream that was just made comes behind all that its context has waited for.
pub(in crate::core) fn come_behind_waits(stream: &'static Stream) -> CudaResult<()> {
    if !HAVE_WAITED.load(Ordering::SeqCst) {
        return Ok(());
    }
    let place = stream.place();
    let hubs = hubs();
    let mut gates = hubs.iter().filter(|&(&other, _)| includes(other, place)).map(|(_, hub)| hub.gate);
    gates.try_for_each(|gate| stream.wait_event(gate, 0))
}

/// A green context is about to go: its hub is one of its streams.
pub(super) fn forget(place: u32) {
    if let Some(Hub { joint, gate, .. }) = hubs().remove(&place) {
        // That they are gone is all that is wanted.
        let _ = joint.destroy().and(gate.destroy());
    }
}
