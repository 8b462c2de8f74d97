//! Stream capture: commands that go into a graph instead of the ring.
//!
//! A capture is the list of its commands' records, in the order they were made. A worker builds the real graph by
//! capturing them again, on any GPU and as often as needed.

use super::graph::Graph;
use super::stream::Stream;
use super::{CudaResult, client};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ThreadId};
use torpor_proto::command::{Command, Copy, CopyStrided, Fill, Launch};
use torpor_proto::error::CudaError;
use torpor_proto::ring::{NO_SLOT, encode_record};

/// `CUstreamCaptureMode` that lets other threads do as they like.
const MODE_RELAXED: u32 = 2;

/// `CUstreamCaptureStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureStatus {
    /// 0
    None = 0,
    /// 1
    Active = 1,
    /// 2
    Invalidated = 2,
}

/// A capture that is going on.
pub struct Capture {
    id: u64,
    origin: u32,
    mode: u32,
    thread: ThreadId,
    recording: Mutex<Recording>,
}

#[derive(Default)]
struct Recording {
    records: Vec<u64>,
    nodes: usize,
    streams: Vec<&'static Stream>,
    is_invalid: bool,
}

thread_local! {
    static THREAD_MODE: Cell<u32> = const { Cell::new(0) };
}

impl Capture {
    /// `cuStreamBeginCapture`.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_UNSUPPORTED` for the legacy stream, `ILLEGAL_STATE` if the stream is capturing, `INVALID_VALUE`
    /// for an unknown mode.
    pub fn begin(stream: &'static Stream, mode: u32) -> CudaResult<()> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        client()?.check_usable()?;
        if mode > MODE_RELAXED {
            return Err(CudaError::INVALID_VALUE);
        }
        if stream.number == 0 {
            return Err(CudaError::STREAM_CAPTURE_UNSUPPORTED);
        }
        if stream.is_capturing() {
            return Err(CudaError::ILLEGAL_STATE);
        }
        let capture = Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            origin: stream.number,
            mode,
            thread: thread::current().id(),
            recording: Mutex::default(),
        });
        stream.join_capture(&capture)
    }

    /// `cuStreamEndCapture`: the graph, and no stream captures any more.
    ///
    /// # Errors
    /// `ILLEGAL_STATE` if the stream is not capturing, `STREAM_CAPTURE_UNMATCHED` if the capture began on another one,
    /// `STREAM_CAPTURE_WRONG_THREAD`, `STREAM_CAPTURE_INVALIDATED`.
    pub fn end(stream: &'static Stream) -> CudaResult<&'static Graph> {
        let capture = stream.current_capture()?;
        if capture.origin != stream.number {
            return Err(CudaError::STREAM_CAPTURE_UNMATCHED);
        }
        if capture.mode != MODE_RELAXED && capture.thread != thread::current().id() {
            return Err(CudaError::STREAM_CAPTURE_WRONG_THREAD);
        }
        let recording =
            std::mem::take(&mut *capture.recording.lock().unwrap_or_else(PoisonError::into_inner));
        recording.streams.iter().for_each(|stream| stream.leave_capture());
        if recording.is_invalid {
            return Err(CudaError::STREAM_CAPTURE_INVALIDATED);
        }
        Graph::new(recording.records, recording.nodes, capture.origin)
    }

    /// `cuThreadExchangeStreamCaptureMode`. Torpor lets every thread allocate while another captures, so the mode only
    /// has to be remembered.
    ///
    /// # Errors
    /// `INVALID_VALUE` for an unknown mode.
    pub fn exchange_thread_mode(mode: u32) -> CudaResult<u32> {
        if mode > MODE_RELAXED {
            return Err(CudaError::INVALID_VALUE);
        }
        Ok(THREAD_MODE.try_with(|own| own.replace(mode)).unwrap_or(mode))
    }

    /// Unique in this process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether it can still become a graph.
    #[must_use]
    pub fn status(&self) -> CaptureStatus {
        let is_invalid = self.recording.lock().unwrap_or_else(PoisonError::into_inner).is_invalid;
        if is_invalid { CaptureStatus::Invalidated } else { CaptureStatus::Active }
    }

    pub(super) fn invalidate(&self) {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner).is_invalid = true;
    }

    pub(super) fn add_stream(&self, stream: &'static Stream) {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner).streams.push(stream);
    }

    pub(super) fn append<C: Command>(&self, command: &C, tail: &[u8]) -> CudaResult<()> {
        let mut recording = self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        if recording.is_invalid {
            return Err(CudaError::STREAM_CAPTURE_INVALIDATED);
        }
        if [Launch::OPCODE, Copy::OPCODE, CopyStrided::OPCODE, Fill::OPCODE].contains(&C::OPCODE) {
            recording.nodes += 1;
        }
        encode_record(&mut recording.records, C::OPCODE, NO_SLOT, command.words(), tail);
        Ok(())
    }
}
