//! Linking.

use super::argument::{In, Out, Text};
use super::cuda_functions;
use super::module::empty_logs;
use super::refused::refuse;
use crate::core::{CudaResult, Link, client, contexts, read_image_file};
use std::ffi::{OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use torpor_proto::error::CudaError;

/// `CU_JIT_INPUT_CUBIN`, `…_PTX`, `…_FATBINARY`: what can be loaded as it is.
const LOADABLE: std::ops::RangeInclusive<u32> = 0..=2;

/// An input. What one alone would need a linker for is refused, and so is a second one.
fn add(link: *mut c_void, kind: u32, read: impl FnOnce() -> CudaResult<Vec<u8>>) -> CudaResult<()> {
    static NAMED: AtomicBool = AtomicBool::new(false);
    let link = Link::find(link)?;
    let added = if LOADABLE.contains(&kind) { link.add(read()?) } else { Err(CudaError::NOT_SUPPORTED) };
    if added == Err(CudaError::NOT_SUPPORTED) {
        refuse("linking of objects, libraries or several inputs (cuLinkAddData, cuLinkAddFile)", &NAMED);
    }
    added
}

cuda_functions! {
    fn cuLinkCreate_v2(count: u32, options: In<u32>, values: Out<usize>, link: Out<*mut c_void>) {
        client()?;
        contexts::require()?;
        if link.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        empty_logs(count, options, values)?;
        link.put(Link::create()?.handle())
    }

    fn cuLinkAddData_v2(
        link: *mut c_void, kind: u32, data: In<u8>, bytes: usize, _name: Text, count: u32, options: In<u32>,
        values: Out<usize>,
    ) {
        client()?;
        if bytes == 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        empty_logs(count, options, values)?;
        add(link, kind, || data.slice(bytes).map(|bytes| [bytes.as_slice(), &[0]].concat()))
    }

    fn cuLinkAddFile_v2(
        link: *mut c_void, kind: u32, path: Text, count: u32, options: In<u32>, values: Out<usize>,
    ) {
        client()?;
        empty_logs(count, options, values)?;
        let path = path.get()?;
        // An empty one is refused here, though others are looked at when the link is complete.
        let read = || read_image_file(Path::new(OsStr::from_bytes(path.as_bytes())));
        add(link, kind, || read().and_then(|file| if file[0] == 0 { Err(CudaError::INVALID_IMAGE) } else { Ok(file) }))
    }

    fn cuLinkComplete(link: *mut c_void, image: Out<*const u8>, bytes: Out<usize>) {
        client()?;
        let (address, length) = Link::find(link)?.complete()?;
        image.put_if_wanted(address);
        bytes.put_if_wanted(length);
        Ok(())
    }

    fn cuLinkDestroy(link: *mut c_void) {
        client()?;
        Link::find(link)?.destroy();
        Ok(())
    }
}
