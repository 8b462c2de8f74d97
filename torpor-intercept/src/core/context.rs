//! Contexts: which one is current in a thread.
//!
//! Every context of a client is the same one on the GPU, but for green ones ([`super::green`]); contexts are told apart because programs
//! compare handles, and because each is of one of the devices that the program sees.

use super::handle::Table;
use super::stream::Stream;
use super::{CudaResult, client, devices};
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use torpor_proto::command::{device_of, is_green};
use torpor_proto::error::CudaError;

/// A context.
pub struct Context {
    number: u32,
    /// Its number for workers: the ordinal of its device, or a green context's.
    place: AtomicU32,
    /// Unlike the number, never given to another one.
    id: AtomicU64,
    flags: AtomicU32,
    /// `CUfunc_cache`
    cache_config: AtomicU32,
    /// How often the primary context was retained.
    retained: AtomicU32,
}

static CONTEXTS: Table<Context> = Table::new(4096);

thread_local! {
    static CURRENT: Cell<*mut c_void> = const { Cell::new(std::ptr::null_mut()) };
    /// Contexts below the current one. Never dropped: libraries push and pop contexts in their own destructors, which run
    /// after those of this thread's variables.
    static PUSHED: ManuallyDrop<RefCell<Vec<*mut c_void>>> = const { ManuallyDrop::new(RefCell::new(Vec::new())) };
}

/// The functions on contexts that belong to no one context.
pub mod contexts {
    use super::*;

    /// The calling thread's current context, or null.
    #[inline]
    pub fn current() -> *mut c_void {
        // A thread that is ending has none.
        CURRENT.try_with(Cell::get).unwrap_or(std::ptr::null_mut())
    }

    /// Makes a context current in the calling thread in place of the one that is. Null leaves none.
    ///
    /// # Errors
    /// `INVALID_CONTEXT` for anything else that is no context.
    pub fn set_current(handle: *mut c_void) -> CudaResult<()> {
        if !handle.is_null() {
            find(handle)?;
        }
        CURRENT.try_with(|current| current.set(handle)).map_err(|_| CudaError::DEINITIALIZED)
    }

    /// Makes a context current and remembers the one that was.
    ///
    /// # Errors
    /// `INVALID_CONTEXT`.
    pub fn push(handle: *mut c_void) -> CudaResult<()> {
        find(handle)?;
        let before = current();
        let remembered = PUSHED.try_with(|pushed| pushed.borrow_mut().push(before));
        remembered.map_err(|_| CudaError::DEINITIALIZED)?;
        set_current(handle)
    }

    /// Takes the current context away and makes the one before current. Gives the one taken.
    ///
    /// # Errors
    /// `INVALID_CONTEXT` if there is none.
    pub fn pop() -> CudaResult<*mut c_void> {
        let popped = current();
        if popped.is_null() {
            return Err(CudaError::INVALID_CONTEXT);
        }
        let before = PUSHED.try_with(|pushed| pushed.borrow_mut().pop()).ok().flatten();
        set_current(before.unwrap_or(std::ptr::null_mut()))?;
        Ok(popped)
    }

    /// The context behind a handle; null means the current one.
    ///
    /// # Errors
    /// `INVALID_CONTEXT` if it is none, or none is current.
    pub fn find(handle: *mut c_void) -> CudaResult<&'static Context> {
        let handle = if handle.is_null() { current() } else { handle };
        CONTEXTS.get(handle).ok_or(CudaError::INVALID_CONTEXT)
    }

    /// An error unless a context is current.
    ///
    /// # Errors
    /// `INVALID_CONTEXT`.
    #[inline]
    pub fn require() -> CudaResult<()> {
        if current().is_null() { Err(CudaError::INVALID_CONTEXT) } else { Ok(()) }
    }

    /// The current context's number for workers; the first device's without one.
    pub fn current_place() -> u32 {
        CONTEXTS.get(current()).map_or(0, Context::place)
    }

    /// Makes a context beside the primary one of a device.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY` with thousands of them.
    pub fn create(flags: u32, place: u32) -> CudaResult<&'static Context> {
        client()?;
        let renew = |context: &Context| {
            context.place.store(place, Ordering::Relaxed);
            context.id.store(next_id(), Ordering::Relaxed);
            context.set_flags(flags);
            context.cache_config.store(0, Ordering::Relaxed);
        };
        CONTEXTS.insert(|number| Context::new(number, flags, place), renew).ok_or(CudaError::OUT_OF_MEMORY)
    }
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Context {
    fn new(number: u32, flags: u32, place: u32) -> Self {
        let [flags, cache_config, retained, place] = [flags, 0, 0, place].map(AtomicU32::new);
        Self { number, place, id: AtomicU64::new(next_id()), flags, cache_config, retained }
    }

    /// The primary context of a device, the same for the whole life of the process.
    pub fn primary(device: u32) -> &'static Self {
        static PRIMARY: [OnceLock<&'static Context>; devices::MOST] =
            [const { OnceLock::new() }; devices::MOST];
        PRIMARY[device as usize % devices::MOST].get_or_init(|| {
            let new = |number| Self::new(number, 0, device);
            let renew = |context: &Self| {
                context.place.store(device, Ordering::Relaxed);
                context.id.store(next_id(), Ordering::Relaxed);
                [&context.flags, &context.cache_config, &context.retained]
                    .into_iter()
                    .for_each(|number| number.store(0, Ordering::Relaxed));
            };
            // There is room for thousands; a leaked context would serve as well.
            CONTEXTS.insert(new, renew).unwrap_or_else(|| Box::leak(Box::new(new(0))))
        })
    }

    /// What the program is given for it.
    #[must_use]
    pub fn handle(&'static self) -> *mut c_void {
        Table::handle(self)
    }

    /// The ordinal of its device.
    #[must_use]
    pub fn device(&self) -> u32 {
        device_of(self.place())
    }

    /// Its number for workers.
    #[must_use]
    pub fn place(&self) -> u32 {
        self.place.load(Ordering::Relaxed)
    }

    /// `cuCtxGetId`: never 0, unique in this process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id.load(Ordering::Relaxed)
    }

    /// `CUctx_flags`.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Sets `CUctx_flags`.
    pub fn set_flags(&self, flags: u32) {
        self.flags.store(flags, Ordering::Relaxed);
    }

    /// `cuCtxGetCacheConfig`: what was set last.
    #[must_use]
    pub fn cache_config(&self) -> u32 {
        self.cache_config.load(Ordering::Relaxed)
    }

    /// `cuCtxSetCacheConfig`.
    ///
    /// # Errors
    /// `INVALID_VALUE` for no `CUfunc_cache`.
    pub fn set_cache_config(&self, config: u32) -> CudaResult<()> {
        /// `CU_FUNC_CACHE_PREFER_EQUAL`
        const LAST: u32 = 3;
        if config > LAST {
            return Err(CudaError::INVALID_VALUE);
        }
        self.cache_config.store(config, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the primary context is retained by anybody.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.retained.load(Ordering::Relaxed) > 0
    }

    /// `cuDevicePrimaryCtxRetain`.
    pub fn retain(&self) {
        self.retained.fetch_add(1, Ordering::Relaxed);
    }

    /// `cuDevicePrimaryCtxRelease`. What the program allocated stays, as long as the process lives.
    ///
    /// # Errors
    /// `INVALID_CONTEXT` if it is not retained.
    pub fn release(&self) -> CudaResult<()> {
        let release = |count: u32| count.checked_sub(1);
        match self.retained.try_update(Ordering::Relaxed, Ordering::Relaxed, release) {
            Ok(_) => Ok(()),
            Err(_) => Err(CudaError::INVALID_CONTEXT),
        }
    }

    /// `cuCtxDestroy`.
    ///
    /// # Errors
    /// What waiting for its work gives; `INVALID_CONTEXT` for a green one, which goes otherwise.
    pub fn destroy(&'static self) -> CudaResult<()> {
        if is_green(self.place()) {
            return Err(CudaError::INVALID_CONTEXT);
        }
        Stream::synchronize_context(self.place())?;
        if contexts::current() == self.handle() {
            let _ = contexts::pop();
        }
        self.forget_peers();
        self.retire();
        Ok(())
    }

    /// The handle names no context any more.
    pub(super) fn retire(&self) {
        CONTEXTS.retire(self.number);
    }
}
