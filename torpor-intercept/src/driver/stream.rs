//! Streams and their capture.

use super::argument::{In, Out};
use super::graph::edges::{LOSSY_QUERY, behind};
use super::{cuda_functions, stream_functions};
use crate::core::graph::{EdgeData, Graph};
use crate::core::green::Green;
use crate::core::{
    Capture, CaptureStatus, Context, CudaResult, Event, Stream as CoreStream, StreamHandle, client, contexts,
    devices,
};
use std::ffi::c_void;
use torpor_proto::error::CudaError;

cuda_functions! {
    /// cuBLAS 13.1 asks, too.
    fn cuStreamGetGreenCtx(stream: *mut c_void, green: Out<*mut c_void>) {
        client()?;
        green.put(green_of(StreamHandle { handle: stream, per_thread: false }.find()?))
    }

    fn cuStreamCreate(stream: Out<*mut c_void>, flags: u32) {
        create(stream, flags, 0)
    }

    fn cuStreamCreateWithPriority(stream: Out<*mut c_void>, flags: u32, priority: i32) {
        create(stream, flags, priority)
    }

    fn cuStreamDestroy | cuStreamDestroy_v2 (stream: *mut c_void) {
        client()?;
        if stream.is_null() {
            return Err(CudaError::INVALID_HANDLE);
        }
        StreamHandle { handle: stream, per_thread: false }.find()?.destroy()
    }

    fn cuThreadExchangeStreamCaptureMode(mode: Out<u32>) {
        client()?;
        mode.put(Capture::exchange_thread_mode(mode.get()?)?)
    }
}

/// Its green context, or null.
fn green_of(stream: &CoreStream) -> *mut c_void {
    Green::of_stream(stream).map_or(std::ptr::null_mut(), Green::handle)
}

/// Its green context, as a context. Else the current context, if that is of the stream's device and no green one: of several contexts
/// of a device the stream does not know which made it.
fn context_of(stream: &CoreStream) -> CudaResult<*mut c_void> {
    if let Some(green) = Green::of_stream(stream) {
        return Ok(green.context()?.handle());
    }
    let is_its = devices::current_place() == stream.device();
    let current = contexts::current();
    Ok(if is_its && !current.is_null() { current } else { Context::primary(stream.device()).handle() })
}

fn create(stream: Out<*mut c_void>, flags: u32, priority: i32) -> CudaResult<()> {
    client()?;
    contexts::require()?;
    if stream.is_null() || flags > 1 {
        return Err(CudaError::INVALID_VALUE);
    }
    stream.put(CoreStream::create(flags, priority)?.handle())
}

stream_functions! {
    fn cuStreamSynchronize / cuStreamSynchronize_ptsz(@ stream) {
        client()?;
        stream.find()?.synchronize()
    }

    fn cuStreamQuery / cuStreamQuery_ptsz(@ stream) {
        client()?;
        stream.find()?.query()
    }

    fn cuStreamWaitEvent / cuStreamWaitEvent_ptsz(@ stream, event: *mut c_void, flags: u32) {
        client()?;
        stream.find()?.wait_event(Event::find(event)?, flags)
    }

    fn cuStreamGetPriority / cuStreamGetPriority_ptsz(@ stream, priority: Out<i32>) {
        client()?;
        priority.put(stream.find()?.priority())
    }

    fn cuStreamGetFlags / cuStreamGetFlags_ptsz(@ stream, flags: Out<u32>) {
        client()?;
        flags.put(stream.find()?.flags())
    }

    fn cuStreamGetId / cuStreamGetId_ptsz(@ stream, id: Out<u64>) {
        client()?;
        id.put(stream.find()?.id())
    }

    fn cuStreamGetCtx / cuStreamGetCtx_ptsz(@ stream, context: Out<*mut c_void>) {
        client()?;
        context.put(context_of(stream.find()?)?)
    }

    /// Of a stream of a green context, that and the primary one.
    fn cuStreamGetCtx_v2 / cuStreamGetCtx_v2_ptsz(
        @ stream, context: Out<*mut c_void>, green_context: Out<*mut c_void>,
    ) {
        client()?;
        let stream = stream.find()?;
        let green = green_of(stream);
        let found = match green.is_null() {
            true => context_of(stream)?,
            false => Context::primary(stream.device()).handle(),
        };
        green_context.put(green)?;
        context.put(found)
    }

    fn cuStreamGetDevice / cuStreamGetDevice_ptsz(@ stream, device: Out<i32>) {
        client()?;
        device.put(stream.find()?.device().cast_signed())
    }

    /// Before CUDA 10.1 without a mode: the strictest.
    fn cuStreamBeginCapture / cuStreamBeginCapture_ptsz(@ stream) {
        client()?;
        Capture::begin(stream.find()?, 0)
    }

    fn cuStreamBeginCapture_v2 / cuStreamBeginCapture_v2_ptsz(@ stream, mode: u32) {
        client()?;
        Capture::begin(stream.find()?, mode)
    }

    fn cuStreamEndCapture / cuStreamEndCapture_ptsz(@ stream, graph: Out<*mut c_void>) {
        client()?;
        let captured = Capture::end(stream.find()?);
        graph.put_if_wanted(captured.as_ref().map_or(std::ptr::null_mut(), |graph| graph.handle()));
        captured.map(|_| ())
    }

    fn cuStreamIsCapturing / cuStreamIsCapturing_ptsz(@ stream, status: Out<i32>) {
        client()?;
        status.put(capture_status(stream.find()?)? as i32)
    }

    /// Up to CUDA 11.2, and in the runtime of CUDA 12 under the same name.
    fn cuStreamGetCaptureInfo / cuStreamGetCaptureInfo_ptsz(@ stream, status: Out<i32>, id: Out<u64>) {
        client()?;
        capture_info(stream.find()?, status, id, CapturePlaces::nowhere())
    }

    fn cuStreamGetCaptureInfo_v2 / cuStreamGetCaptureInfo_v2_ptsz(
        @ stream, status: Out<i32>, id: Out<u64>, graph: Out<*mut c_void>, dependencies: Out<*const c_void>,
        count: Out<usize>,
    ) {
        client()?;
        capture_info(stream.find()?, status, id, CapturePlaces { graph, dependencies, edges: None, count })
    }

    /// As above, with the data of edges.
    fn cuStreamGetCaptureInfo_v3 / cuStreamGetCaptureInfo_v3_ptsz(
        @ stream, status: Out<i32>, id: Out<u64>, graph: Out<*mut c_void>, dependencies: Out<*const c_void>,
        edges: Out<*const c_void>, count: Out<usize>,
    ) {
        client()?;
        let places = CapturePlaces { graph, dependencies, edges: Some(edges), count };
        capture_info(stream.find()?, status, id, places)
    }

    fn cuStreamUpdateCaptureDependencies / cuStreamUpdateCaptureDependencies_ptsz(
        @ stream, nodes: In<*mut c_void>, count: usize, flags: u32,
    ) {
        client()?;
        update_capture(stream.find()?, nodes, In::nothing(), count, flags)
    }

    fn cuStreamUpdateCaptureDependencies_v2 / cuStreamUpdateCaptureDependencies_v2_ptsz(
        @ stream, nodes: In<*mut c_void>, data: In<EdgeData>, count: usize, flags: u32,
    ) {
        client()?;
        update_capture(stream.find()?, nodes, data, count, flags)
    }

    fn cuStreamBeginCaptureToGraph / cuStreamBeginCaptureToGraph_ptsz(
        @ stream, graph: *mut c_void, nodes: In<*mut c_void>, data: In<EdgeData>, count: usize, mode: u32,
    ) {
        client()?;
        begin_capture_to_graph(stream.find()?, graph, behind(nodes, data, count)?, mode)
    }
}

/// Where a program wants to be told of a capture.
pub(crate) struct CapturePlaces {
    pub(crate) graph: Out<*mut c_void>,
    pub(crate) dependencies: Out<*const c_void>,
    /// `None`: the program does not know that edges have data.
    pub(crate) edges: Option<Out<*const c_void>>,
    pub(crate) count: Out<usize>,
}

impl CapturePlaces {
    pub(crate) fn nowhere() -> Self {
        let (graph, dependencies, count) = (Out::nowhere(), Out::nowhere(), Out::nowhere());
        Self { graph, dependencies, edges: None, count }
    }
}

pub(crate) fn capture_status(stream: &CoreStream) -> CudaResult<CaptureStatus> {
    // Asked before each allocation: a stream that captures nothing is told without a lock.
    if !stream.is_capturing() {
        return Ok(CaptureStatus::None);
    }
    if stream.is_barred() {
        return Err(CudaError::STREAM_CAPTURE_IMPLICIT);
    }
    Ok(stream.capture().map_or(CaptureStatus::None, |capture| capture.status()))
}

/// Tells what is known of a stream's capture. Nodes are told only if the program wants them.
pub(crate) fn capture_info(
    stream: &CoreStream,
    status: Out<i32>,
    id: Out<u64>,
    places: CapturePlaces,
) -> CudaResult<()> {
    let state = capture_status(stream)?;
    let capture = stream.capture().filter(|_| state == CaptureStatus::Active);
    let CapturePlaces { graph, dependencies, edges, count } = places;
    let none = (std::ptr::null(), std::ptr::null(), 0, false);
    let (nodes, data, found, has_data) = match &capture {
        Some(capture) if !dependencies.is_null() || !count.is_null() => {
            let info = capture.info(stream)?;
            (info.dependencies, info.edges, info.count, info.has_edge_data)
        }
        _ => none,
    };
    if has_data && edges.is_none_or(Out::is_null) && !dependencies.is_null() {
        return Err(LOSSY_QUERY);
    }
    id.put_if_wanted(capture.as_ref().map_or(0, |capture| capture.id()));
    graph.put_if_wanted(capture.as_ref().map_or(std::ptr::null_mut(), |capture| capture.graph()));
    dependencies.put_if_wanted(nodes);
    if let Some(edges) = edges {
        edges.put_if_wanted(data);
    }
    count.put_if_wanted(found);
    status.put(state as i32)
}

/// `CUstreamUpdateCaptureDependencies_flags`: 0 adds, 1 replaces.
pub(crate) fn update_capture(
    stream: &CoreStream,
    nodes: In<*mut c_void>,
    data: In<EdgeData>,
    count: usize,
    flags: u32,
) -> CudaResult<()> {
    let capture = stream.capture().ok_or(CudaError::ILLEGAL_STATE)?;
    if flags > 1 {
        return Err(CudaError::INVALID_VALUE);
    }
    capture.update_dependencies(stream, &behind(nodes, data, count)?, flags == 1)
}

pub(crate) fn begin_capture_to_graph(
    stream: &'static CoreStream,
    graph: *mut c_void,
    behind: Vec<(*mut c_void, EdgeData)>,
    mode: u32,
) -> CudaResult<()> {
    Capture::begin_to_graph(stream, Graph::find(graph)?, &behind, mode)
}
