//! The functions of the process that are pending, and the threads that call them.

use super::are_pending;
use super::call::Call;
use crate::core::stream::order::{Lane, StreamOrder};
use crate::core::{Client, CudaResult, client, helper_thread};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use torpor_proto::error::CudaError;

/// How long a thread without a function to call stays.
const IDLE: Duration = Duration::from_secs(1);

/// The stack of a thread that Linux gives by default, which the program's functions may count on.
const STACK_BYTES: usize = 8 << 20;

/// So many posts are held at most; then those who post wait, as they do when NVIDIA's queues are full.
pub(super) const MOST_HELD: usize = 1 << 16;

/// A command that is held: puts it into the ring.
pub(super) type HeldPost = Box<dyn FnOnce(&'static Client) + Send>;

/// All of them.
pub(super) struct Functions {
    pub(super) open: Mutex<Open>,
    /// For threads: there may be a function to call.
    pub(super) work: Condvar,
    /// For who waits: a function has returned.
    pub(super) returned: Condvar,
}

/// What is known of them.
pub(super) struct Open {
    pub(super) order: StreamOrder<Call, HeldPost>,
    /// What is to be done once nothing with a place before these has not left.
    pub(super) afterwards: Vec<(u64, HeldPost)>,
    pub(super) threads: usize,
    /// Threads that are not calling a function.
    pub(super) free_threads: usize,
}

/// Those of this process.
pub(super) static FUNCTIONS: Functions = Functions {
    open: Mutex::new(Open { order: StreamOrder::new(), afterwards: Vec::new(), threads: 0, free_threads: 0 }),
    work: Condvar::new(),
    returned: Condvar::new(),
};

/// Functions of the process that have not returned, and posts that are held.
pub(super) static PENDING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    pub(super) static IS_CALLING: Cell<bool> = const { Cell::new(false) };
}

impl Functions {
    pub(super) fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, call: Call) -> CudaResult<()> {
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

    /// After something has left: posts what is next, and has functions called that are.
    pub(super) fn go_on(&self, open: &mut Open) {
        let mut is_posted = false;
        while let Some(post) = open.order.take_held() {
            if let Ok(client) = client() {
                post(client);
            }
            // SYNC POINT returned: whoever posts without a look at the order comes behind it.
            PENDING.fetch_sub(1, Ordering::Release);
            is_posted = true;
        }
        let order = &open.order;
        for (_, what) in open.afterwards.extract_if(.., |(place, _)| !order.has_any_before(*place)) {
            if let Ok(client) = client() {
                what(client);
            }
        }
        if is_posted {
            self.returned.notify_all();
        }
        self.provide_threads(open);
    }

    /// A thread for each function that can be called now; one at least while any is pending. With fewer than wanted,
    /// functions wait for a thread.
    pub(super) fn provide_threads(&self, open: &mut Open) {
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
    pub(super) fn wait_before<'a>(
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
    pub(super) fn serve(&self) {
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
                self.go_on(&mut open);
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
