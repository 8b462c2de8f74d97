//! Events.

use super::{ready, runtime_functions, stream_functions};
use crate::core::{CudaResult, Event};
use crate::driver::argument::Out;
use std::ffi::c_void;
use torpor_proto::error::CudaError;

// cudaEventCreateWithFlags (driver_types.h).
const BLOCKING_SYNC: u32 = 1;
const DISABLE_TIMING: u32 = 2;
const INTERPROCESS: u32 = 4;

fn create(event: Out<*mut c_void>, flags: u32) -> CudaResult<()> {
    ready()?;
    if event.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    if flags & !(BLOCKING_SYNC | DISABLE_TIMING | INTERPROCESS) != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    event.put(Event::create(flags)?.handle())
}

runtime_functions! {
    fn cudaEventCreate(event: Out<*mut c_void>) {
        create(event, 0)
    }

    fn cudaEventCreateWithFlags(event: Out<*mut c_void>, flags: u32) {
        create(event, flags)
    }

    fn cudaEventDestroy(event: *mut c_void) {
        ready()?;
        Event::find(event)?.destroy()
    }

    fn cudaEventQuery(event: *mut c_void) {
        ready()?;
        Event::find(event)?.query()
    }

    fn cudaEventSynchronize(event: *mut c_void) {
        ready()?;
        Event::find(event)?.synchronize()
    }

    fn cudaEventElapsedTime(milliseconds: Out<f32>, start: *mut c_void, end: *mut c_void) {
        ready()?;
        milliseconds.put(Event::find(end)?.elapsed_since(Event::find(start)?)?)
    }
}

stream_functions! {
    fn cudaEventRecord / cudaEventRecord_ptsz(event: *mut c_void, @ stream) {
        ready()?;
        Event::find(event)?.record(stream.find()?, 0)
    }

    fn cudaEventRecordWithFlags / cudaEventRecordWithFlags_ptsz(event: *mut c_void, @ stream, flags: u32) {
        ready()?;
        Event::find(event)?.record(stream.find()?, flags)
    }
}
