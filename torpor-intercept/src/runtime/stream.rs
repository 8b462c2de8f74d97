//! Streams and their capture.

use super::{ready, runtime_functions, stream_functions};
use crate::core::graph::EdgeData;
use crate::core::{Capture, CudaResult, Event, Stream, StreamHandle};
use crate::driver::argument::{In, Out};
use crate::driver::graph::edges::behind;
use crate::driver::stream::{
    CapturePlaces, begin_capture_to_graph, capture_info, capture_status, update_capture,
};
use std::ffi::c_void;
use torpor_proto::error::CudaError;

fn create(stream: Out<*mut c_void>, flags: u32, priority: i32) -> CudaResult<()> {
    ready()?;
    if stream.is_null() || flags > 1 {
        return Err(CudaError::INVALID_VALUE);
    }
    stream.put(Stream::create(flags, priority)?.handle())
}

runtime_functions! {
    fn cudaStreamCreate(stream: Out<*mut c_void>) {
        create(stream, 0, 0)
    }

    fn cudaStreamCreateWithFlags(stream: Out<*mut c_void>, flags: u32) {
        create(stream, flags, 0)
    }

    fn cudaStreamCreateWithPriority(stream: Out<*mut c_void>, flags: u32, priority: i32) {
        create(stream, flags, priority)
    }

    fn cudaStreamDestroy(stream: *mut c_void) {
        ready()?;
        if stream.is_null() {
            return Err(CudaError::INVALID_HANDLE);
        }
        StreamHandle { handle: stream, per_thread: false }.find()?.destroy()
    }

    fn cudaThreadExchangeStreamCaptureMode(mode: Out<u32>) {
        ready()?;
        mode.put(Capture::exchange_thread_mode(mode.get()?)?)
    }
}

stream_functions! {
    fn cudaStreamSynchronize / cudaStreamSynchronize_ptsz(@ stream) {
        ready()?;
        stream.find()?.synchronize()
    }

    fn cudaStreamQuery / cudaStreamQuery_ptsz(@ stream) {
        ready()?;
        stream.find()?.query()
    }

    fn cudaStreamWaitEvent / cudaStreamWaitEvent_ptsz(@ stream, event: *mut c_void, flags: u32) {
        ready()?;
        stream.find()?.wait_event(Event::find(event)?, flags)
    }

    fn cudaStreamGetPriority / cudaStreamGetPriority_ptsz(@ stream, priority: Out<i32>) {
        ready()?;
        priority.put(stream.find()?.priority())
    }

    fn cudaStreamGetFlags / cudaStreamGetFlags_ptsz(@ stream, flags: Out<u32>) {
        ready()?;
        flags.put(stream.find()?.flags())
    }

    fn cudaStreamGetId / cudaStreamGetId_ptsz(@ stream, id: Out<u64>) {
        ready()?;
        id.put(stream.find()?.id())
    }

    fn cudaStreamGetDevice / cudaStreamGetDevice_ptsz(@ stream, device: Out<i32>) {
        ready()?;
        device.put(stream.find()?.device().cast_signed())
    }

    fn cudaStreamBeginCapture / cudaStreamBeginCapture_ptsz(@ stream, mode: u32) {
        ready()?;
        Capture::begin(stream.find()?, mode)
    }

    fn cudaStreamEndCapture / cudaStreamEndCapture_ptsz(@ stream, graph: Out<*mut c_void>) {
        ready()?;
        let captured = Capture::end(stream.find()?);
        graph.put_if_wanted(captured.as_ref().map_or(std::ptr::null_mut(), |graph| graph.handle()));
        captured.map(|_| ())
    }

    fn cudaStreamIsCapturing / cudaStreamIsCapturing_ptsz(@ stream, status: Out<i32>) {
        ready()?;
        status.put(capture_status(stream.find()?)? as i32)
    }

    /// CUDA 12 calls this one `_v3`.
    fn cudaStreamGetCaptureInfo / cudaStreamGetCaptureInfo_ptsz(
        @ stream, status: Out<i32>, id: Out<u64>, graph: Out<*mut c_void>, dependencies: Out<*const c_void>,
        edges: Out<*const c_void>, count: Out<usize>,
    ) {
        ready()?;
        let places = CapturePlaces { graph, dependencies, edges: Some(edges), count };
        capture_info(stream.find()?, status, id, places)
    }

    /// What the headers of CUDA 12 call `cudaStreamGetCaptureInfo`.
    fn cudaStreamGetCaptureInfo_v2 / cudaStreamGetCaptureInfo_v2_ptsz(
        @ stream, status: Out<i32>, id: Out<u64>, graph: Out<*mut c_void>, dependencies: Out<*const c_void>,
        count: Out<usize>,
    ) {
        ready()?;
        capture_info(stream.find()?, status, id, CapturePlaces { graph, dependencies, edges: None, count })
    }

    /// The same name in CUDA 12, for code made for CUDA 11.
    fn cudaStreamGetCaptureInfo_v1 / cudaStreamGetCaptureInfo_v1_ptsz(@ stream, status: Out<i32>, id: Out<u64>) {
        ready()?;
        capture_info(stream.find()?, status, id, CapturePlaces::nowhere())
    }

    fn cudaStreamUpdateCaptureDependencies / cudaStreamUpdateCaptureDependencies_ptsz(
        @ stream, nodes: In<*mut c_void>, data: In<EdgeData>, count: usize, flags: u32,
    ) {
        ready()?;
        update_capture(stream.find()?, nodes, data, count, flags)
    }

    /// The same name in CUDA 12.
    fn cudaStreamUpdateCaptureDependencies_v1 / cudaStreamUpdateCaptureDependencies_v1_ptsz(
        @ stream, nodes: In<*mut c_void>, count: usize, flags: u32,
    ) {
        ready()?;
        update_capture(stream.find()?, nodes, In::nothing(), count, flags)
    }

    fn cudaStreamBeginCaptureToGraph / cudaStreamBeginCaptureToGraph_ptsz(
        @ stream, graph: *mut c_void, nodes: In<*mut c_void>, data: In<EdgeData>, count: usize, mode: u32,
    ) {
        ready()?;
        begin_capture_to_graph(stream.find()?, graph, behind(nodes, data, count)?, mode)
    }
}
