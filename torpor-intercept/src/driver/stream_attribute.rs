//! Attributes of streams.

use super::argument::{In, Out};
use super::stream_functions;
use crate::core::{StreamAttributeValue, StreamHandle, client};
use std::ffi::c_void;

stream_functions! {
    fn cuStreamGetAttribute / cuStreamGetAttribute_ptsz(@ stream, attribute: u32, value: Out<StreamAttributeValue>) {
        client()?;
        value.put(stream.find()?.attribute(attribute)?)
    }

    fn cuStreamSetAttribute / cuStreamSetAttribute_ptsz(@ stream, attribute: u32, value: In<StreamAttributeValue>) {
        client()?;
        stream.find()?.set_attribute(attribute, value.get()?)
    }

    fn cuStreamCopyAttributes / cuStreamCopyAttributes_ptsz(@ destination, source: *mut c_void) {
        client()?;
        let source = StreamHandle { handle: source, per_thread: destination.per_thread }.find()?;
        destination.find()?.copy_attributes(source);
        Ok(())
    }
}
