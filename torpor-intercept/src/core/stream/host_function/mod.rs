//! Host functions: functions of the program that are called in the order of a stream.
//!
//! A function waits here, in the client, until the stream has done what was posted before (an awaited `StreamSynchronize`),
//! and what comes later in the stream is held here until the function has returned: the thread that posts goes on, as with
//! NVIDIA's driver, for the function may wait for it. Only copies of pageable memory wait in the call. So neither the ring nor
//! a worker knows of host functions, and a client with some can move as any other.
//!
//! Each function is called by a thread of this library, none of whose locks are held meanwhile. There are as many threads
//! as streams that have a function to be called, because functions of different streams may wait for each other; threads end
//! when they have had nothing to do for a second.
//!
//! While no function is pending, all this costs a stream's post one load, see [`are_pending`].

mod call;
mod threads;

use super::Stream;
use super::order::Lane;
use crate::core::graph::{HostCall, HostCopy};
use crate::core::word::Wait;
use crate::core::{Client, CudaResult, client};
use call::{Call, Task, marker};
use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use threads::{FUNCTIONS, IS_CALLING, MOST_HELD, PENDING};
use torpor_proto::command::Command;
use torpor_proto::command::includes;
use torpor_proto::error::CudaError;

/// `CUhostFn`, `cudaHostFn_t`: what was given with it.
pub type LaunchedFunction = unsafe extern "C" fn(*mut c_void);

/// `CUstreamCallback`, `cudaStreamCallback_t`: the stream, a `CUresult`, and what was given with it.
pub type Callback = unsafe extern "C" fn(*mut c_void, u32, *mut c_void);

/// What the program wants called.
#[derive(Clone, Copy, Debug)]
pub enum HostFunction {
    /// Of `cuLaunchHostFunc`: not called after an error.
    Launched(LaunchedFunction),
    /// Of `cuStreamAddCallback`: told of an error. With the stream as the program named it.
    Callback(Callback, *mut c_void),
}

/// Whether any function of any stream has not returned, or anything behind one is held.
#[inline]
pub(in crate::core) fn are_pending() -> bool {
    // SYNC POINT returned: who sees none pending sees what they did.
    PENDING.load(Ordering::Acquire) != 0
}

impl Stream {
    /// `cuLaunchHostFunc`, `cuStreamAddCallback`.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_UNSUPPORTED` for a callback while capturing, `NOT_PERMITTED` in a host function, `OPERATING_SYSTEM` without a
    /// thread to call it, or errors of earlier posted commands.
    ///
    /// # Safety
    /// The function may be called with `data`, by any thread, until it has been called once; if the stream is capturing, at
    /// every launch of the graph.
    pub unsafe fn call_in_order(&'static self, function: HostFunction, data: *mut c_void) -> CudaResult<()> {
        let client = client()?;
        if let (true, HostFunction::Launched(function)) = (self.is_capturing(), function) {
            return self.current_capture()?.append_function(self, HostCall { function, data });
        }
        self.refuse_capture()?;
        self.do_in_order(client, Task::Function(function, data))
    }

    /// Copies memory of the program in the order of the stream, as a function of the program is called.
    ///
    /// # Errors
    /// As [`Self::call_in_order`].
    pub(in crate::core) fn copy_in_order(&'static self, copy: Arc<HostCopy>) -> CudaResult<()> {
        self.do_in_order(client()?, Task::Copy(copy))
    }

    /// Waits for words in the order of the stream.
    ///
    /// # Errors
    /// As [`Self::call_in_order`].
    pub(in crate::core) fn wait_in_order(&'static self, waits: Arc<[Wait]>) -> CudaResult<()> {
        self.do_in_order(client()?, Task::Wait(waits))
    }

    fn do_in_order(&'static self, client: &'static Client, task: Task) -> CudaResult<()> {
        client.check()?;
        refuse_in_function()?;
        if self.lane().is_blocking() {
            marker()?;
        }
        // Read before it enters: what is counted by now has entered before, or is in the ring.
        let position = self.position();
        FUNCTIONS.add(Call { stream: self, position, task })
    }

    /// `NOT_READY` if a function that synchronising with this stream waits for has not returned.
    pub(super) fn query_functions(&self) -> CudaResult<()> {
        if !are_pending() {
            return Ok(());
        }
        refuse_in_function()?;
        let lane = self.lane();
        let is_pending = FUNCTIONS.lock().order.has_function_before(u64::MAX, |other| lane.includes(other));
        if is_pending { Err(CudaError::NOT_READY) } else { Ok(()) }
    }

    /// Waits for the functions that were added before, and that synchronising with this stream waits for.
    ///
    /// # Errors
    /// `NOT_PERMITTED` in a host function.
    pub(super) fn wait_for_functions(&self) -> CudaResult<()> {
        let lane = self.lane();
        wait_for(|other| lane.includes(other))
    }
}

/// Waits for the functions of all streams that were added before.
///
/// # Errors
/// `NOT_PERMITTED` in a host function.
pub(in crate::core) fn wait_for_all() -> CudaResult<()> {
    wait_for(|_| true)
}

/// Waits for the functions of a context's streams that were added before, for a device with those of its green ones.
///
/// # Errors
/// `NOT_PERMITTED` in a host function.
pub(in crate::core) fn wait_for_context(place: u32) -> CudaResult<()> {
    wait_for(|lane| includes(place, lane.place))
}

fn wait_for(matters: impl Fn(Lane) -> bool) -> CudaResult<()> {
    if !are_pending() {
        return Ok(());
    }
    refuse_in_function()?;
    let open = FUNCTIONS.lock();
    let place = open.order.next_place();
    drop(FUNCTIONS.wait_before(open, place, matters));
    Ok(())
}

/// Posts a command in the order of a stream, or holds it while functions come before it, and what is at the place `after`. Gives
/// the place of what is held.
///
/// # Errors
/// `NOT_PERMITTED` in a host function, or what posting gives.
pub(super) fn post_or_hold<C: Command<Reply = ()>>(
    stream: &'static Stream,
    client: &Client,
    command: &C,
    tail: &[u8],
    after: Option<u64>,
) -> CudaResult<Option<u64>> {
    refuse_in_function()?;
    let lane = stream.lane();
    let mut open = FUNCTIONS.lock();
    if PENDING.load(Ordering::Relaxed) >= MOST_HELD {
        let place = open.order.next_place();
        open = FUNCTIONS.wait_before(open, place, |other| lane.is_ordered_with(other));
    }
    let is_behind = open.order.has_function_before(u64::MAX, |other| lane.is_ordered_with(other))
        || after.is_some_and(|place| open.order.contains(place));
    if !is_behind {
        // Still locked: nobody is held before this is in the ring.
        return client.post(command, tail).map(|()| None);
    }
    let (words, tail) = (command.words().to_vec(), tail.to_vec());
    let post = move |client: &'static Client| {
        // What is wrong with the connection every later call tells.
        let _ = client.post_words(C::OPCODE, &words, &tail);
    };
    PENDING.fetch_add(1, Ordering::Relaxed);
    Ok(Some(open.order.enter_held(lane, Box::new(post), after)))
}

/// Whether a post that was held there still is.
pub(in crate::core) fn is_held(place: u64) -> bool {
    are_pending() && FUNCTIONS.lock().order.contains(place)
}

/// Waits until a post that was held there is in the ring.
///
/// # Errors
/// `NOT_PERMITTED` in a host function.
pub(in crate::core) fn wait_until_posted(place: u64) -> CudaResult<()> {
    refuse_in_function()?;
    let mut open = FUNCTIONS.lock();
    while open.order.contains(place) {
        open = FUNCTIONS.returned.wait(open).unwrap_or_else(PoisonError::into_inner);
    }
    Ok(())
}

/// Does something once everything is posted that is held now, which may name what is to be destroyed.
pub(in crate::core) fn when_posted(
    what: impl FnOnce(&'static Client) -> CudaResult<()> + Send + 'static,
) -> CudaResult<()> {
    if are_pending() {
        let mut open = FUNCTIONS.lock();
        let place = open.order.next_place();
        if open.order.has_any_before(place) {
            open.afterwards.push((place, Box::new(|client| _ = what(client))));
            return Ok(());
        }
    }
    what(client()?)
}

/// A place in the order of a stream, for somebody who posts: earlier functions have returned, later ones are not called
/// before it is dropped.
pub(in crate::core) struct Turn {
    lane: Lane,
    place: u64,
}

impl Turn {
    /// Waits for the functions that were added before.
    ///
    /// # Errors
    /// `NOT_PERMITTED` in a host function.
    pub(in crate::core) fn take(stream: &Stream) -> CudaResult<Self> {
        refuse_in_function()?;
        let lane = stream.lane();
        let mut open = FUNCTIONS.lock();
        let place = open.order.enter_post(lane);
        drop(FUNCTIONS.wait_before(open, place, |other| lane.is_ordered_with(other)));
        Ok(Self { lane, place })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut open = FUNCTIONS.lock();
        open.order.leave(self.lane, self.place);
        FUNCTIONS.go_on(&mut open);
    }
}

/// A host function must not call CUDA. Asked only where a call would have to wait for functions, its own among them, and
/// would never return.
fn refuse_in_function() -> CudaResult<()> {
    if IS_CALLING.try_with(Cell::get).unwrap_or(false) { Err(CudaError::NOT_PERMITTED) } else { Ok(()) }
}
