//! Green contexts: contexts that have a part of the GPU's multiprocessors.
//!
//! One is a context with streams of its own, a default stream among them; memory, code and events are the device's. `part.rs` says which
//! multiprocessors it has, `gather.rs` records events behind all of its work, and has it wait for them. A worker knows a green context only as
//! what streams are of: it has nothing to keep but these.

mod gather;
mod part;

pub(in crate::core) use gather::come_behind_waits;
pub use gather::{record, wait};
pub use part::{Piece, describe, split, whole};

use super::context::{Context, contexts};
use super::handle::Table;
use super::stream::Stream;
use super::{CudaResult, client, devices};
use part::{Levels, look};
use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use torpor_proto::command::{
    LEGACY_STREAM, MOST_CONTEXTS, MOST_DEVICES, PartLevel, PartShape, device_of, is_green,
};
use torpor_proto::error::CudaError;

/// A green context.
pub struct Green {
    number: u32,
    /// The number of its legacy default stream.
    legacy: AtomicU32,
    /// Nothing once it was destroyed.
    state: Mutex<Option<State>>,
}

#[derive(Clone)]
struct State {
    context: &'static Context,
    levels: Levels,
    shape: PartShape,
}

static GREENS: Table<Green> = Table::new(MOST_CONTEXTS);

/// The number of a green context's legacy default stream.
pub(super) fn legacy_number(place: u32) -> Option<u32> {
    Green::at(place).map(|green| green.legacy.load(Ordering::Relaxed))
}

/// The part of the GPU that a context has, as workers are told; nothing for all of it.
///
/// # Errors
/// `CONTEXT_IS_DESTROYED`.
pub(super) fn part_of(place: u32) -> CudaResult<Arc<[PartLevel]>> {
    if is_green(place) { Ok(Green::at(place).ok_or(GONE)?.state()?.levels) } else { Ok(Levels::default()) }
}

const GONE: CudaError = CudaError::CONTEXT_IS_DESTROYED;

impl Green {
    /// `cuGreenCtxCreate`, of a description that [`describe`] made.
    ///
    /// # Errors
    /// `INVALID_VALUE` for no description, or one of another device; `OUT_OF_MEMORY`; what the driver says.
    pub fn create(description: *mut c_void, device: u32) -> CudaResult<&'static Self> {
        client()?;
        let (of, levels) = part::described(description)?;
        if of != device {
            return Err(CudaError::INVALID_VALUE);
        }
        let shape = look(&levels)?;
        let make = |number| Self { number, legacy: AtomicU32::new(0), state: Mutex::default() };
        let green = GREENS.insert(make, |_| ()).ok_or(CudaError::OUT_OF_MEMORY)?;
        devices::expect_green();
        let made = green.fill(device, levels, shape);
        if made.is_err() {
            *green.lock() = None;
            GREENS.retire(green.number);
        }
        made.map(|()| green)
    }

    fn fill(&'static self, device: u32, levels: Levels, shape: PartShape) -> CudaResult<()> {
        let place = device + self.number * MOST_DEVICES;
        let context = contexts::create(0, place)?;
        *self.lock() = Some(State { context, levels, shape });
        match Stream::create_in(place, LEGACY_STREAM, 0) {
            Ok(legacy) => self.legacy.store(legacy.number, Ordering::Relaxed),
            Err(error) => {
                context.retire();
                return Err(error);
            }
        }
        Context::primary(device).retain();
        Ok(())
    }

    /// The green context behind a handle.
    ///
    /// # Errors
    /// `INVALID_CONTEXT`.
    pub fn find(handle: *mut c_void) -> CudaResult<&'static Self> {
        GREENS.get(handle).ok_or(CudaError::INVALID_CONTEXT)
    }

    fn at(place: u32) -> Option<&'static Self> {
        if is_green(place) { GREENS.numbered(place / MOST_DEVICES) } else { None }
    }

    /// That of a context, if it is a green one.
    #[must_use]
    pub fn of_context(context: &Context) -> Option<&'static Self> {
        Self::at(context.place())
    }

    /// That of a stream, if it has one.
    #[must_use]
    pub fn of_stream(stream: &Stream) -> Option<&'static Self> {
        Self::at(stream.place())
    }

    /// What the program is given for it.
    #[must_use]
    pub fn handle(&'static self) -> *mut c_void {
        Table::handle(self)
    }

    /// `cuCtxFromGreenCtx`.
    ///
    /// # Errors
    /// `CONTEXT_IS_DESTROYED`.
    pub fn context(&self) -> CudaResult<&'static Context> {
        Ok(self.state()?.context)
    }

    /// How many multiprocessors it has.
    ///
    /// # Errors
    /// `CONTEXT_IS_DESTROYED`.
    pub fn multiprocessors(&self) -> CudaResult<u32> {
        Ok(self.state()?.shape.multiprocessors)
    }

    /// `cuGreenCtxGetDevResource`.
    ///
    /// # Errors
    /// `CONTEXT_IS_DESTROYED`.
    pub fn piece(&self) -> CudaResult<Piece> {
        let State { context, levels, shape } = self.state()?;
        Ok(part::of_levels(context.device(), levels, shape))
    }

    /// `cuGreenCtxStreamCreate`.
    ///
    /// # Errors
    /// As of any stream.
    pub fn create_stream(&self, flags: u32, priority: i32) -> CudaResult<&'static Stream> {
        Stream::create_in(self.context()?.place(), flags, priority)
    }

    /// `cuGreenCtxDestroy`: returns at once; its streams end with it.
    ///
    /// # Errors
    /// `CONTEXT_IS_DESTROYED`, or what posting gives.
    pub fn destroy(&'static self) -> CudaResult<()> {
        let context = self.context()?;
        gather::forget(context.place());
        // All of them, whatever becomes of one.
        let ended =
            Stream::of_context(context.place()).map(Stream::end_with_context).fold(Ok(()), Result::and);
        context.retire();
        *self.lock() = None;
        let _ = Context::primary(device_of(context.place())).release();
        let retired = super::stream::host_function::when_posted(move |_| {
            GREENS.retire(self.number);
            Ok(())
        });
        ended.and(retired)
    }

    fn state(&self) -> CudaResult<State> {
        self.lock().clone().ok_or(GONE)
    }

    fn lock(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
