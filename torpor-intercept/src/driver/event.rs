//! Events.

use super::argument::Out;
use super::{cuda_functions, stream_functions};
use crate::core::{Event, client, contexts};
use std::ffi::c_void;
use torpor_proto::error::CudaError;

cuda_functions! {
    fn cuEventCreate(event: Out<*mut c_void>, flags: u32) {
        client()?;
        contexts::require()?;
        if event.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        event.put(Event::create(flags)?.handle())
    }

    fn cuEventDestroy | cuEventDestroy_v2 (event: *mut c_void) {
        client()?;
        Event::find(event)?.destroy()
    }

    fn cuEventQuery(event: *mut c_void) {
        client()?;
        Event::find(event)?.query()
    }

    fn cuEventSynchronize(event: *mut c_void) {
        client()?;
        Event::find(event)?.synchronize()
    }

    fn cuEventElapsedTime | cuEventElapsedTime_v2 (milliseconds: Out<f32>, start: *mut c_void, end: *mut c_void) {
        client()?;
        milliseconds.put(Event::find(end)?.elapsed_since(Event::find(start)?)?)
    }
}

stream_functions! {
    fn cuEventRecord / cuEventRecord_ptsz(event: *mut c_void, @ stream) {
        client()?;
        Event::find(event)?.record(stream.find()?, 0)
    }

    fn cuEventRecordWithFlags / cuEventRecordWithFlags_ptsz(event: *mut c_void, @ stream, flags: u32) {
        client()?;
        Event::find(event)?.record(stream.find()?, flags)
    }
}
