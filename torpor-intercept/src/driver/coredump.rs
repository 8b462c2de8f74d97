//! What a program says of core dumps of the GPU.

use super::argument::{In, Out};
use super::cuda_functions;
use crate::core::{CoredumpSetting, CudaResult, client, contexts};
use std::ffi::c_void;
use torpor_proto::error::CudaError;

/// A value into a place of so many bytes; without a place, how many it wants.
fn tell(context: *mut c_void, setting: u32, place: Out<u8>, room: Out<usize>) -> CudaResult<()> {
    let setting = CoredumpSetting::of(setting)?;
    if place.is_null() {
        return room.put(setting.bytes());
    }
    let value = setting.value(context);
    if room.get()? < value.len() {
        return Err(CudaError::INVALID_VALUE);
    }
    place.put_all(value.iter().copied())?;
    room.put(value.len())
}

/// The other direction.
fn set(context: *mut c_void, setting: u32, value: In<u8>, bytes: Out<usize>) -> CudaResult<()> {
    let setting = CoredumpSetting::of(setting)?;
    if value.is_null() {
        return bytes.put(setting.bytes());
    }
    setting.set(context, value.slice(bytes.get()?.min(setting.bytes()))?)
}

fn current() -> CudaResult<*mut c_void> {
    client()?;
    Ok(contexts::find(std::ptr::null_mut())?.handle())
}

cuda_functions! {
    fn cuCoredumpGetAttribute(setting: u32, value: Out<u8>, bytes: Out<usize>) {
        tell(current()?, setting, value, bytes)
    }

    fn cuCoredumpSetAttribute(setting: u32, value: In<u8>, bytes: Out<usize>) {
        set(current()?, setting, value, bytes)
    }

    /// Programs may say it before they initialise CUDA.
    fn cuCoredumpGetAttributeGlobal(setting: u32, value: Out<u8>, bytes: Out<usize>) {
        tell(std::ptr::null_mut(), setting, value, bytes)
    }

    fn cuCoredumpSetAttributeGlobal(setting: u32, value: In<u8>, bytes: Out<usize>) {
        set(std::ptr::null_mut(), setting, value, bytes)
    }
}
