//! Streams and their capture.

use super::argument::Out;
use super::{cuda_functions, stream_functions};
use crate::core::{
    Capture, CaptureStatus, CudaResult, Event, Stream as CoreStream, StreamHandle, client, contexts,
};
use std::ffi::c_void;
use torpor_proto::error::CudaError;

cuda_functions! {
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
        let client = client()?;
        stream.find()?;
        let current = contexts::current();
        context.put(if current.is_null() { client.primary_context().handle() } else { current })
    }

    fn cuStreamGetDevice / cuStreamGetDevice_ptsz(@ stream, device: Out<i32>) {
        client()?;
        stream.find()?;
        device.put(0)
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
        status.put(capture_status(stream.find()?).0 as i32)
    }

    /// The dependencies are not known here, only that there is a capture and which one.
    fn cuStreamGetCaptureInfo_v2 / cuStreamGetCaptureInfo_v2_ptsz(
        @ stream, status: Out<i32>, id: Out<u64>, graph: Out<*mut c_void>, dependencies: Out<*const c_void>,
        dependency_count: Out<usize>,
    ) {
        capture_info(stream, status, id, graph)?;
        dependencies.put_if_wanted(std::ptr::null());
        dependency_count.put_if_wanted(0);
        Ok(())
    }

    /// As above, with the data of edges.
    fn cuStreamGetCaptureInfo_v3 / cuStreamGetCaptureInfo_v3_ptsz(
        @ stream, status: Out<i32>, id: Out<u64>, graph: Out<*mut c_void>, dependencies: Out<*const c_void>,
        edges: Out<*const c_void>, dependency_count: Out<usize>,
    ) {
        capture_info(stream, status, id, graph)?;
        dependencies.put_if_wanted(std::ptr::null());
        edges.put_if_wanted(std::ptr::null());
        dependency_count.put_if_wanted(0);
        Ok(())
    }
}

fn capture_status(stream: &CoreStream) -> (CaptureStatus, u64) {
    match stream.capture() {
        Some(capture) => (capture.status(), capture.id()),
        None => (CaptureStatus::None, 0),
    }
}

fn capture_info(
    stream: StreamHandle,
    status: Out<i32>,
    id: Out<u64>,
    graph: Out<*mut c_void>,
) -> CudaResult<()> {
    client()?;
    let (state, number) = capture_status(stream.find()?);
    id.put_if_wanted(number);
    graph.put_if_wanted(std::ptr::null_mut());
    status.put(state as i32)
}
