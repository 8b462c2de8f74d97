//! Host functions: functions of the program that are called in the order of a stream.
//!
//! A function waits here, in the client, until the stream has done what was posted before (an awaited `StreamSynchronize`),
//! and what comes later in the stream waits here until the function has returned: whoever posts behind it waits in the
//! call. So neither the ring nor a worker knows of host functions, and a client with some can move as any other.
//!
//! Each function is called by a thread of this library, none of whose locks are held meanwhile. There are as many threads
//! as streams that have a function to be called, because functions of different streams may wait for each other; threads end
//! when they have had nothing to do for a second.
//!
//! While no function is pending, all this costs a stream's post one load, see [`are_pending`].

use super::event::{DISABLE_TIMING, Event};
use super::stream::Stream;
use super::stream_order::{Lane, StreamOrder};
use super::{Client, CudaResult, client, helper_thread};
use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;
use torpor_proto::command::{EventRecord, StreamSynchronize};
use torpor_proto::error::CudaError;

/// How long a thread without a function to call stays.
const IDLE: Duration = Duration::from_secs(1);

/// The stack of a thread that Linux gives by default, which the program's functions may count on.
const STACK_BYTES: usize = 8 << 20;

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

/// A function on its way to be called.
struct Call {
    stream: &'static Stream,
    function: HostFunction,
    data: *mut c_void,
}

// SAFETY: the pointers are the program's, which gives them to be passed to its function in another thread.
unsafe impl Send for Call {}

struct Functions {
    open: Mutex<Open>,
    /// For threads: there may be a function to call.
    work: Condvar,
    /// For who waits: a function has returned.
    returned: Condvar,
}

struct Open {
    order: StreamOrder<Call>,
    threads: usize,
    /// Threads that are not calling a function.
    free_threads: usize,
}

static FUNCTIONS: Functions = Functions {
    open: Mutex::new(Open { order: StreamOrder::new(), threads: 0, free_threads: 0 }),
    work: Condvar::new(),
    returned: Condvar::new(),
};

/// Functions of the process that have not returned.
static PENDING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static IS_CALLING: Cell<bool> = const { Cell::new(false) };
}

/// Whether any function of any stream has not returned.
#[inline]
pub(super) fn are_pending() -> bool {
    // SYNC POINT returned: who sees none pending sees what they did.
    PENDING.load(Ordering::Acquire) != 0
}

impl Stream {
    /// `cuLaunchHostFunc`, `cuStreamAddCallback`.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_UNSUPPORTED` while capturing, `NOT_PERMITTED` in a host function, `OPERATING_SYSTEM` without a
    /// thread to call it, or errors of earlier posted commands.
    ///
    /// # Safety
    /// The function may be called with `data`, by any thread, until it has been called once.
    pub unsafe fn call_in_order(&'static self, function: HostFunction, data: *mut c_void) -> CudaResult<()> {
        let client = client()?;
        self.refuse_capture()?;
        client.check()?;
        refuse_in_function()?;
        if self.lane().is_blocking {
            marker()?;
        }
        FUNCTIONS.add(Call { stream: self, function, data })
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
pub(super) fn wait_for_all() -> CudaResult<()> {
    wait_for(|_| true)
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

/// A place in the order of a stream, for somebody who posts: earlier functions have returned, later ones are not called
/// before it is dropped.
pub(super) struct Turn {
    lane: Lane,
    place: u64,
}

impl Turn {
    /// Waits for the functions that were added before.
    ///
    /// # Errors
    /// `NOT_PERMITTED` in a host function.
    pub(super) fn take(stream: &Stream) -> CudaResult<Self> {
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
        FUNCTIONS.provide_threads(&mut open);
    }
}

/// A host function must not call CUDA. Asked only where a call would have to wait for functions, its own among them, and
/// would never return.
fn refuse_in_function() -> CudaResult<()> {
    if IS_CALLING.try_with(Cell::get).unwrap_or(false) { Err(CudaError::NOT_PERMITTED) } else { Ok(()) }
}

impl Functions {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, call: Call) -> CudaResult<()> {
        let lane = call.stream.lane();
        let mut open = self.lock();
        PENDING.fetch_add(1, Ordering::Relaxed);
        let place = open.order.enter_function(lane, call);
        self.provide_threads(&mut open);
        if open.threads == 0 {
            open.order.leave(lane, place);
            PENDING.fetch_sub(1, Ordering::Release);
            return Err(CudaError::OPERATING_SYSTEM);
        }
        Ok(())
    }

    /// A thread for each function that can be called now; one at least while any is pending. With fewer than wanted,
    /// functions wait for a thread.
    fn provide_threads(&self, open: &mut Open) {
        let ready = open.order.ready();
        let wanted = if open.threads == 0 && are_pending() { ready.max(1) } else { ready };
        while open.free_threads < wanted {
            let thread = thread::Builder::new().name("torpor-function".to_owned()).stack_size(STACK_BYTES);
            if !helper_thread::start(thread, || FUNCTIONS.serve()) {
                break;
            }
            open.threads += 1;
            open.free_threads += 1;
        }
        for _ in 0..ready {
            self.work.notify_one();
        }
    }

    /// Waits until no function before a place is left in lanes that matter.
    fn wait_before<'a>(
        &self,
        mut open: MutexGuard<'a, Open>,
        place: u64,
        matters: impl Fn(Lane) -> bool,
    ) -> MutexGuard<'a, Open> {
        while open.order.has_function_before(place, &matters) {
            open = self.returned.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
        open
    }

    /// A thread's life.
    fn serve(&self) {
        let _ = IS_CALLING.try_with(|is_calling| is_calling.set(true));
        let mut open = self.lock();
        loop {
            if let Some((lane, place, call)) = open.order.take_ready() {
                open.free_threads -= 1;
                drop(open);
                call.make();
                open = self.lock();
                open.free_threads += 1;
                open.order.leave(lane, place);
                // SYNC POINT returned
                PENDING.fetch_sub(1, Ordering::Release);
                self.returned.notify_all();
                self.provide_threads(&mut open);
                continue;
            }
            let (guard, waited) = self.work.wait_timeout(open, IDLE).unwrap_or_else(PoisonError::into_inner);
            open = guard;
            if waited.timed_out() && !are_pending() {
                open.threads -= 1;
                open.free_threads -= 1;
                return;
            }
        }
    }
}

impl Call {
    /// Waits for the stream's earlier work and calls the function.
    fn make(self) {
        let status = match client().and_then(|client| self.wait_for_work(client)) {
            Ok(()) => 0,
            Err(error) => error.0,
        };
        match self.function {
            // SAFETY: the program gave it to be called with this, see `Stream::call_in_order`; no lock is held.
            HostFunction::Launched(function) if status == 0 => unsafe { function(self.data) },
            HostFunction::Launched(_) => {}
            // SAFETY: as above.
            HostFunction::Callback(function, stream) => unsafe { function(stream, status, self.data) },
        }
    }

    fn wait_for_work(&self, client: &'static Client) -> CudaResult<()> {
        let stream = self.stream;
        let position = stream.position();
        if stream.lane().is_blocking {
            // Synchronising a blocking stream does not wait for earlier work of the legacy stream, a command in it does.
            let command =
                EventRecord { event: marker()?.number, stream: stream.number, flags: 0, reserved: 0 };
            client.post(&command, &[])?;
        }
        client.call(&StreamSynchronize { stream: stream.number, reserved: 0 }, &[])?;
        stream.mark_done_up_to(position);
        client.check_usable()
    }
}

/// An event that is recorded for the sake of the command alone.
fn marker() -> CudaResult<&'static Event> {
    static MARKER: OnceLock<&'static Event> = OnceLock::new();
    if let Some(marker) = MARKER.get() {
        return Ok(marker);
    }
    let made = Event::create(DISABLE_TIMING)?;
    // Of two that are made at once one is not used.
    Ok(MARKER.get_or_init(|| made))
}
