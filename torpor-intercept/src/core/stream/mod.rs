//! Streams, and the order of what is in them.
//!
//! [`post`] puts commands in, [`synchronize`] waits for them, [`of_context`] goes over those of a context, [`progress`] knows how far they are; [`deferred_sync`] answers
//! early where the program cannot tell, [`host_function`] calls the program in between, [`capture`] keeps commands for a graph.

mod attribute;
mod barred;
mod capture;
mod deferred_sync;
pub(super) mod host_function;
mod legacy;
mod of_context;
mod order;
mod per_thread;
mod post;
mod progress;
mod synchronize;
mod word;

pub use attribute::StreamAttributeValue;
pub use capture::{Capture, CaptureInfo, CaptureStatus};
pub(super) use deferred_sync::DeferredSyncs;
pub(super) use host_function::Turn;
pub use host_function::{Callback, HostFunction, LaunchedFunction};
pub(super) use progress::Position;

use super::handle::Table;
use super::{CudaResult, client, devices, green};
use attribute::Attributes;
use barred::Bars;
use deferred_sync::StreamDeferral;
use order::{Lane, Role};
use progress::Progress;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use torpor_proto::command::{StreamCreate, StreamDestroy, device_of};
use torpor_proto::error::CudaError;

/// `CU_STREAM_NON_BLOCKING`
const NON_BLOCKING: u32 = 1;

/// A stream. Number 0 is the first device's legacy default stream.
pub struct Stream {
    pub(super) number: u32,
    /// Unlike the number, never given to another one.
    id: AtomicU64,
    /// `CUstream_flags`, or that it is a legacy stream.
    kind: AtomicU32,
    /// The number of its context for workers.
    place: AtomicU32,
    priority: AtomicI32,
    attributes: Attributes,
    /// Commands posted to it; for a legacy stream, to any that synchronises with it.
    progress: Progress,
    deferral: StreamDeferral,
    /// Commands posted to it do not go into the ring: it is captured, or barred.
    is_capturing: AtomicBool,
    capture: Mutex<Option<Arc<Capture>>>,
    /// Of a legacy stream.
    bars: Bars,
}

const LEGACY_ID: u64 = 1;
static NEXT_ID: AtomicU64 = AtomicU64::new(LEGACY_ID + 1);

static STREAMS: Table<Stream> = Table::new(4096);

/// How a C function names a stream.
#[derive(Clone, Copy, Debug)]
pub struct StreamHandle {
    /// What the program passed.
    pub handle: *mut c_void,
    /// Whether null means the calling thread's default stream (the `_ptsz` functions).
    pub per_thread: bool,
}

impl StreamHandle {
    /// The stream it names.
    ///
    /// # Errors
    /// `INVALID_HANDLE` if it names none.
    #[inline]
    pub fn find(self) -> CudaResult<&'static Stream> {
        // CU_STREAM_LEGACY is 1, CU_STREAM_PER_THREAD 2 (cuda.h).
        match (self.handle.addr(), self.per_thread) {
            (0, false) | (1, _) => Ok(Stream::legacy()),
            (0, true) | (2, _) => per_thread::stream(),
            _ => STREAMS.get(self.handle).ok_or_else(|| of_context::why_gone(self.handle)),
        }
    }
}

impl Stream {
    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        Self::new(0, NEXT_ID.fetch_add(1, Ordering::Relaxed), (torpor_proto::command::LEGACY_STREAM, 0), 0)
    }

    const fn new(number: u32, id: u64, (kind, place): (u32, u32), priority: i32) -> Self {
        Self {
            number,
            id: AtomicU64::new(id),
            kind: AtomicU32::new(kind),
            place: AtomicU32::new(place),
            priority: AtomicI32::new(priority),
            attributes: Attributes::new(),
            progress: Progress::new(),
            deferral: StreamDeferral::new(),
            is_capturing: AtomicBool::new(false),
            capture: Mutex::new(None),
            bars: Bars::new(),
        }
    }

    /// `cuStreamCreateWithPriority`: of the current context.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY` with thousands of streams, `CONTEXT_IS_DESTROYED`, or what posting gives.
    pub fn create(flags: u32, priority: i32) -> CudaResult<&'static Self> {
        Self::create_in(devices::current_place(), flags, priority)
    }

    /// Makes a stream of a context.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY` with thousands of streams, `CONTEXT_IS_DESTROYED`, or what posting gives.
    pub(in crate::core) fn create_in(place: u32, flags: u32, priority: i32) -> CudaResult<&'static Self> {
        let (client, part) = (client()?, green::part_of(place)?);
        // As the driver does, a priority out of range is clamped; greater ones are smaller numbers.
        let (least, greatest) = client.device().stream_priorities;
        let priority = priority.clamp(greatest.min(least), least.max(greatest));
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let insert = || {
            STREAMS.insert(
                |number| Self::new(number, id, (flags, place), priority),
                |stream| {
                    stream.id.store(id, Ordering::Relaxed);
                    stream.kind.store(flags, Ordering::Relaxed);
                    stream.place.store(place, Ordering::Relaxed);
                    stream.priority.store(priority, Ordering::Relaxed);
                    stream.attributes.renew();
                    stream.progress.renew();
                    stream.deferral.renew();
                },
            )
        };
        let stream = insert().or_else(|| {
            per_thread::destroy_left();
            insert().or_else(|| {
                of_context::forget_oldest();
                insert()
            })
        });
        let stream = stream.ok_or(CudaError::OUT_OF_MEMORY)?;
        let command = StreamCreate { stream: stream.number, flags, priority, context: place };
        client.post(&command, bytemuck::cast_slice(&part))?;
        green::come_behind_waits(stream)?;
        Ok(stream)
    }

    /// What the program is given for it.
    #[must_use]
    pub fn handle(&'static self) -> *mut c_void {
        Table::handle(self)
    }

    /// `cuStreamGetId`: not 0, and no other stream of this process has or had it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id.load(Ordering::Relaxed)
    }

    /// `CUstream_flags`.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.kind() & NON_BLOCKING
    }

    fn kind(&self) -> u32 {
        self.kind.load(Ordering::Relaxed)
    }

    /// The ordinal of its device.
    #[inline]
    #[must_use]
    pub fn device(&self) -> u32 {
        device_of(self.place())
    }

    /// What its context is for workers.
    #[inline]
    pub(in crate::core) fn place(&self) -> u32 {
        self.place.load(Ordering::Relaxed)
    }

    /// Its priority.
    #[must_use]
    pub fn priority(&self) -> i32 {
        self.priority.load(Ordering::Relaxed)
    }

    /// `cuStreamDestroy`: returns at once; it goes when its host functions have returned and its work is done.
    ///
    /// # Errors
    /// `INVALID_HANDLE` for a default stream.
    pub fn destroy(&'static self) -> CudaResult<()> {
        if self.is_legacy() || per_thread::is_own(self) {
            return Err(CudaError::INVALID_HANDLE);
        }
        if let Some(capture) = self.capture() {
            self.leave_capture(&capture);
        }
        let settled = self.settle_deferred();
        let destroyed = host_function::when_posted(move |client| {
            // Posted before the number is free again, so that a stream created under it comes later in the ring.
            let posted = client.post(&StreamDestroy { stream: self.number, reserved: 0 }, &[]);
            STREAMS.retire(self.number);
            posted
        });
        settled.and(destroyed)
    }

    /// Its place among streams that wait for each other.
    #[inline]
    fn lane(&self) -> Lane {
        Lane { number: self.number, place: self.place(), role: Role::of(self.kind()) }
    }

    /// How many commands it has, to compare with [`Self::is_done_up_to`].
    pub(super) fn position(&self) -> Position {
        self.progress.position()
    }

    /// Whether everything up to a position is known to be done.
    pub(super) fn is_done_up_to(&self, position: Position) -> bool {
        self.progress.are_done_up_to(position)
    }

    /// Whether everything up to a position is known to be done, or is an upload.
    fn is_done_but_for_uploads(&self, position: Position) -> bool {
        self.progress.are_done_but_for_uploads(position)
    }

    /// Notes that everything up to a position is done.
    pub(super) fn mark_done_up_to(&self, position: Position) {
        self.progress.mark_done_up_to(position);
    }

    /// Whether its commands go into a capture, or nowhere.
    #[must_use]
    pub fn is_capturing(&self) -> bool {
        self.is_capturing.load(Ordering::Relaxed)
    }

    /// The capture it is part of.
    #[must_use]
    pub fn capture(&self) -> Option<Arc<Capture>> {
        self.capture.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn current_capture(&self) -> CudaResult<Arc<Capture>> {
        self.refuse_barred()?;
        self.capture().ok_or(CudaError::ILLEGAL_STATE)
    }

    /// Makes this stream part of a capture, if it is not yet.
    fn join_capture(&'static self, capture: &Arc<Capture>) -> CudaResult<()> {
        let mut own = self.capture.lock().unwrap_or_else(PoisonError::into_inner);
        match &*own {
            Some(current) if Arc::ptr_eq(current, capture) => Ok(()),
            Some(_) => Err(CudaError(902)), // CUDA_ERROR_STREAM_CAPTURE_MERGE
            None => {
                *own = Some(capture.clone());
                self.is_capturing.store(true, Ordering::Relaxed);
                self.bar_legacy(capture);
                capture.add_stream(self);
                Ok(())
            }
        }
    }

    /// Ends its part in a capture, unless it is in another one by now: a stream that was made anew may be.
    fn leave_capture(&self, capture: &Arc<Capture>) {
        let mut own = self.capture.lock().unwrap_or_else(PoisonError::into_inner);
        if own.as_ref().is_some_and(|own| Arc::ptr_eq(own, capture)) {
            *own = None;
            self.is_capturing.store(false, Ordering::Relaxed);
            self.unbar_legacy(capture);
        }
    }

    /// Synchronising is not allowed in a capture, and spoils it.
    pub(super) fn refuse_capture(&self) -> CudaResult<()> {
        if !self.is_capturing() {
            return Ok(());
        }
        self.refuse_barred()?;
        if let Some(capture) = self.capture() {
            capture.invalidate();
        }
        Err(CudaError::STREAM_CAPTURE_UNSUPPORTED)
    }
}
