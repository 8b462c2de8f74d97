//! Streams.

use super::capture::Capture;
use super::event::Event;
use super::handle::Table;
use super::host_function::{self, Turn};
use super::owed::StreamOwed;
use super::position::{Counts, Position};
use super::stream_order::Lane;
use super::{Client, CudaResult, client, pool};
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use torpor_proto::command::{
    Command, ContextSynchronize, Copy, StreamCreate, StreamDestroy, StreamQuery, StreamSynchronize,
    StreamWaitEvent,
};
use torpor_proto::error::CudaError;

/// `CU_STREAM_NON_BLOCKING`
const NON_BLOCKING: u32 = 1;

/// A stream. Number 0 is the legacy default stream.
pub struct Stream {
    pub(super) number: u32,
    /// Unlike the number, never given to another one.
    id: AtomicU64,
    flags: AtomicU32,
    priority: AtomicI32,
    /// Commands posted to it; for the legacy stream, to any that synchronises with it.
    counts: Counts,
    pub(super) owed: StreamOwed,
    is_capturing: AtomicBool,
    capture: Mutex<Option<Arc<Capture>>>,
}

const LEGACY_ID: u64 = 1;
static NEXT_ID: AtomicU64 = AtomicU64::new(LEGACY_ID + 1);

static STREAMS: Table<Stream> = Table::new(4096);
static LEGACY: Stream = Stream::new(0, LEGACY_ID, 0, 0);

thread_local! {
    static PER_THREAD: std::cell::Cell<Option<&'static Stream>> = const { std::cell::Cell::new(None) };
}

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
            (0, false) | (1, _) => Ok(&LEGACY),
            (0, true) | (2, _) => Stream::of_this_thread(),
            _ => STREAMS.get(self.handle).ok_or(CudaError::INVALID_HANDLE),
        }
    }
}

impl Stream {
    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        Self::new(0, NEXT_ID.fetch_add(1, Ordering::Relaxed), 0, 0)
    }

    const fn new(number: u32, id: u64, flags: u32, priority: i32) -> Self {
        Self {
            number,
            id: AtomicU64::new(id),
            flags: AtomicU32::new(flags),
            priority: AtomicI32::new(priority),
            counts: Counts::new(),
            owed: StreamOwed::new(),
            is_capturing: AtomicBool::new(false),
            capture: Mutex::new(None),
        }
    }

    /// `cuStreamCreateWithPriority`.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY` with thousands of streams, or what posting gives.
    pub fn create(flags: u32, priority: i32) -> CudaResult<&'static Self> {
        let client = client()?;
        // As the driver does, a priority out of range is clamped; greater ones are smaller numbers.
        let (least, greatest) = client.device.stream_priorities;
        let priority = priority.clamp(greatest.min(least), least.max(greatest));
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let stream = STREAMS.insert(
            |number| Self::new(number, id, flags, priority),
            |stream| {
                stream.id.store(id, Ordering::Relaxed);
                stream.flags.store(flags, Ordering::Relaxed);
                stream.priority.store(priority, Ordering::Relaxed);
                stream.owed.renew();
            },
        );
        let stream = stream.ok_or(CudaError::OUT_OF_MEMORY)?;
        client.post(&StreamCreate { stream: stream.number, flags, priority, reserved: 0 }, &[])?;
        Ok(stream)
    }

    /// The calling thread's default stream: an ordinary one that synchronises with the legacy stream.
    fn of_this_thread() -> CudaResult<&'static Self> {
        if let Ok(Some(stream)) = PER_THREAD.try_with(std::cell::Cell::get) {
            return Ok(stream);
        }
        let stream = Self::create(0, 0)?;
        let _ = PER_THREAD.try_with(|own| own.set(Some(stream)));
        Ok(stream)
    }

    /// The legacy default stream.
    pub(super) fn legacy() -> &'static Self {
        &LEGACY
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
        self.flags.load(Ordering::Relaxed)
    }

    /// Its priority.
    #[must_use]
    pub fn priority(&self) -> i32 {
        self.priority.load(Ordering::Relaxed)
    }

    /// `cuStreamDestroy`: returns when its host functions have; the worker destroys it when its work is done.
    ///
    /// # Errors
    /// `INVALID_HANDLE` for a default stream.
    pub fn destroy(&'static self) -> CudaResult<()> {
        if self.number == 0
            || PER_THREAD
                .try_with(std::cell::Cell::get)
                .ok()
                .flatten()
                .is_some_and(|own| own.number == self.number)
        {
            return Err(CudaError::INVALID_HANDLE);
        }
        self.wait_for_functions()?;
        self.leave_capture();
        let paid = self.pay();
        // Posted before the number is free again, so that a stream created under it comes later in the ring.
        let posted = client()?.post(&StreamDestroy { stream: self.number, reserved: 0 }, &[]);
        STREAMS.retire(self.number);
        paid.and(posted)
    }

    /// Puts a command in the order of this stream: into the ring, or into the capture it is part of. Waits for host
    /// functions that come before it.
    #[inline]
    pub(super) fn post<C: Command<Reply = ()>>(
        &'static self,
        client: &Client,
        command: &C,
        tail: &[u8],
    ) -> CudaResult<()> {
        if self.is_capturing.load(Ordering::Relaxed) {
            return self.current_capture()?.append(command, tail);
        }
        client.check()?;
        self.come_behind_owed(client)?;
        // Asked when nobody else can post: what gets into the ring now comes before the synchronisation of any function
        // that is added now.
        if !client.post_unless(host_function::are_pending, command, tail)? {
            return self.post_behind_functions(client, command, tail);
        }
        self.count_posted();
        Ok(())
    }

    #[cold]
    fn post_behind_functions<C: Command<Reply = ()>>(
        &'static self,
        client: &Client,
        command: &C,
        tail: &[u8],
    ) -> CudaResult<()> {
        let turn = Turn::take(self)?;
        self.post_in_turn(client, command, tail, &turn)
    }

    /// Puts a command in the order of this stream, for who has taken a turn: it waits for no host function.
    pub(super) fn post_in_turn<C: Command<Reply = ()>>(
        &'static self,
        client: &Client,
        command: &C,
        tail: &[u8],
        _turn: &Turn,
    ) -> CudaResult<()> {
        client.check()?;
        self.come_behind_owed(client)?;
        client.post(command, tail)?;
        self.count_posted();
        Ok(())
    }

    /// As [`Self::post_in_turn`], for a copy of staged memory into an allocation of the device: nobody can tell when it is
    /// done but by the stream's later work.
    pub(super) fn post_upload(&'static self, client: &Client, copy: &Copy, _turn: &Turn) -> CudaResult<()> {
        client.check()?;
        self.come_behind_owed_of_others(client)?;
        client.post(copy, &[])?;
        // An upload to a blocking stream is done only when the legacy stream's earlier work is, and that can be told.
        if self.lane().is_blocking {
            self.count_posted();
        } else {
            self.counts.count_upload();
        }
        Ok(())
    }

    #[inline]
    fn count_posted(&self) {
        self.counts.count();
        if self.lane().is_blocking {
            LEGACY.counts.count();
        }
    }

    /// Its place among streams that wait for each other.
    #[inline]
    pub(super) fn lane(&self) -> Lane {
        let is_blocking = self.number != 0 && self.flags() & NON_BLOCKING == 0;
        Lane { number: self.number, is_blocking }
    }

    /// How many commands it has, to compare with [`Self::is_done_up_to`].
    pub(super) fn position(&self) -> Position {
        self.counts.position()
    }

    /// Whether everything up to a position is known to be done.
    pub(super) fn is_done_up_to(&self, position: Position) -> bool {
        self.counts.are_done_up_to(position)
    }

    /// Whether everything up to a position is known to be done, or is an upload.
    pub(super) fn is_done_but_for_uploads(&self, position: Position) -> bool {
        self.counts.are_done_but_for_uploads(position)
    }

    /// Notes that everything up to a position is done.
    pub(super) fn mark_done_up_to(&self, position: Position) {
        self.counts.mark_done_up_to(position);
    }

    /// `cuStreamSynchronize`. Answered here if nothing was posted since the last time, or uploads alone.
    ///
    /// # Errors
    /// Those of earlier posted commands; `STREAM_CAPTURE_UNSUPPORTED` while capturing.
    pub fn synchronize(&'static self) -> CudaResult<()> {
        let client = client()?;
        self.refuse_capture()?;
        self.wait_for_functions()?;
        self.synchronize_posted(client)
    }

    /// As [`Self::synchronize`], but does not wait for host functions.
    pub(super) fn synchronize_posted(&'static self, client: &'static Client) -> CudaResult<()> {
        self.refuse_capture()?;
        let position = self.position();
        if !self.is_done_up_to(position) && !self.owe(client, position)? {
            client.call(&StreamSynchronize { stream: self.number, reserved: 0 }, &[])?;
            self.mark_done_up_to(position);
        }
        pool::release_surplus(false)?;
        client.check()
    }

    /// `cuStreamQuery`.
    ///
    /// # Errors
    /// `NOT_READY` while there is work.
    pub fn query(&'static self) -> CudaResult<()> {
        let client = client()?;
        self.refuse_capture()?;
        let position = self.position();
        if let Err(error) = self.query_functions() {
            client.check()?;
            return Err(error);
        }
        if self.is_done_up_to(position) || self.owe(client, position)? {
            return client.check();
        }
        client.check()?;
        client.call(&StreamQuery { stream: self.number, reserved: 0 }, &[])?;
        self.mark_done_up_to(position);
        Ok(())
    }

    /// `cuCtxSynchronize`.
    ///
    /// # Errors
    /// Those of earlier posted commands.
    pub fn synchronize_all() -> CudaResult<()> {
        client()?;
        host_function::wait_for_all()?;
        Self::synchronize_all_posted()
    }

    /// As [`Self::synchronize_all`], but does not wait for host functions.
    pub(super) fn synchronize_all_posted() -> CudaResult<()> {
        let client = client()?;
        let position = client.posted.load(Ordering::Acquire);
        if client.synchronized.load(Ordering::Relaxed) < position {
            client.call(&ContextSynchronize {}, &[])?;
            // The synchronisation itself is one more; whoever posted meanwhile makes the numbers differ.
            client.synchronized.fetch_max(position + 1, Ordering::Relaxed);
        }
        pool::release_surplus(true)?;
        client.check()
    }

    /// `cuStreamWaitEvent`. Waiting for an event of a capture makes the stream part of it.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_ISOLATION` if a capturing stream would wait for an event from outside.
    pub fn wait_event(&'static self, event: &Event, flags: u32) -> CudaResult<()> {
        let client = client()?;
        match event.captured() {
            Some(capture) => self.join_capture(&capture)?,
            None if self.is_capturing() => return Err(CudaError::STREAM_CAPTURE_ISOLATION),
            None if event.is_done() => return client.check(),
            None => {}
        }
        let command = StreamWaitEvent { stream: self.number, event: event.number, flags, reserved: 0 };
        self.post(client, &command, &[])
    }

    /// Whether its commands go into a capture.
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
        self.capture().ok_or(CudaError::ILLEGAL_STATE)
    }

    /// Makes this stream part of a capture, if it is not yet.
    pub(super) fn join_capture(&'static self, capture: &Arc<Capture>) -> CudaResult<()> {
        let mut own = self.capture.lock().unwrap_or_else(PoisonError::into_inner);
        match &*own {
            Some(current) if Arc::ptr_eq(current, capture) => Ok(()),
            Some(_) => Err(CudaError(902)), // CUDA_ERROR_STREAM_CAPTURE_MERGE
            None => {
                *own = Some(capture.clone());
                self.is_capturing.store(true, Ordering::Relaxed);
                capture.add_stream(self);
                Ok(())
            }
        }
    }

    pub(super) fn leave_capture(&self) {
        self.is_capturing.store(false, Ordering::Relaxed);
        *self.capture.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Synchronising is not allowed in a capture, and spoils it.
    pub(super) fn refuse_capture(&self) -> CudaResult<()> {
        if !self.is_capturing() {
            return Ok(());
        }
        if let Some(capture) = self.capture() {
            capture.invalidate();
        }
        Err(CudaError::STREAM_CAPTURE_UNSUPPORTED)
    }
}
