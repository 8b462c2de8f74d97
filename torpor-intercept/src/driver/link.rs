//! Linking.

use super::argument::{In, Out, Text};
use super::cuda_functions;
use super::jit::JitOptions;
use super::refused::refuse;
use crate::core::{CudaResult, Link, client, contexts};
use std::ffi::{OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::AtomicBool;
use torpor_proto::error::CudaError;
use torpor_proto::image::bundle::InputKind;

fn add(link: *mut c_void, kind: u32, read: impl FnOnce() -> CudaResult<Vec<u8>>) -> CudaResult<()> {
    static NAMED: AtomicBool = AtomicBool::new(false);
    let link = Link::find(link)?;
    let Some(kind) = InputKind::numbered(kind) else {
        refuse("linking of LLVM code (cuLinkAddData, cuLinkAddFile)", &NAMED);
        return Err(CudaError::NOT_SUPPORTED);
    };
    link.add(kind, read()?)
}

cuda_functions! {
    fn cuLinkCreate_v2(count: u32, options: In<u32>, values: Out<usize>, link: Out<*mut c_void>) {
        client()?;
        contexts::require()?;
        if link.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        let jit = JitOptions::read(count, options, values)?;
        let choices = jit.choices().to_vec();
        link.put(Link::create(&choices, move |said| jit.tell_errors(said))?.handle())
    }

    fn cuLinkAddData_v2(
        link: *mut c_void, kind: u32, data: In<u8>, bytes: usize, _name: Text, count: u32, options: In<u32>,
        values: Out<usize>,
    ) {
        client()?;
        if bytes == 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        JitOptions::read(count, options, values)?;
        add(link, kind, || data.slice(bytes))
    }

    fn cuLinkAddFile_v2(
        link: *mut c_void, kind: u32, path: Text, count: u32, options: In<u32>, values: Out<usize>,
    ) {
        client()?;
        JitOptions::read(count, options, values)?;
        let path = path.get()?;
        let path = OsStr::from_bytes(path.as_bytes());
        add(link, kind, || match std::fs::read(path) {
            // An empty one is refused here, though others are looked at when the link is complete.
            Ok(file) if file.is_empty() => Err(CudaError::INVALID_IMAGE),
            read => read.map_err(|_| CudaError::FILE_NOT_FOUND),
        })
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
