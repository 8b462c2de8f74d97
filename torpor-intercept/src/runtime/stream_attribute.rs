//! Attributes of streams, which have the driver's numbers and values.

use super::{ready, runtime_functions, stream_functions};
use crate::core::{CudaResult, StreamAttributeValue, StreamHandle};
use crate::driver::argument::{In, Out};
use std::ffi::c_void;

fn copy(destination: *mut c_void, source: *mut c_void, per_thread: bool) -> CudaResult<()> {
    ready()?;
    let [destination, source] =
        [destination, source].map(|handle| StreamHandle { handle, per_thread }.find());
    destination?.copy_attributes(source?);
    Ok(())
}

stream_functions! {
    fn cudaStreamGetAttribute / cudaStreamGetAttribute_ptsz(@ stream, attribute: u32, value: Out<StreamAttributeValue>) {
        ready()?;
        value.put(stream.find()?.attribute(attribute)?)
    }

    fn cudaStreamSetAttribute / cudaStreamSetAttribute_ptsz(@ stream, attribute: u32, value: In<StreamAttributeValue>) {
        ready()?;
        stream.find()?.set_attribute(attribute, value.get()?)
    }
}

runtime_functions! {
    fn cudaStreamCopyAttributes(destination: *mut c_void, source: *mut c_void) {
        copy(destination, source, false)
    }

    fn cudaStreamCopyAttributes_ptsz(destination: *mut c_void, source: *mut c_void) {
        copy(destination, source, true)
    }
}
