//! Arrays (texture memory). There are none; programs describe their elements all the same.

use std::ffi::c_int;

/// `cudaChannelFormatDesc`: bits of x, y, z, w; kind.
#[repr(C)]
pub(super) struct ChannelFormat([c_int; 5]);

pub(super) extern "C" fn cudaCreateChannelDesc(
    x_bits: c_int,
    y_bits: c_int,
    z_bits: c_int,
    w_bits: c_int,
    kind: c_int,
) -> ChannelFormat {
    ChannelFormat([x_bits, y_bits, z_bits, w_bits, kind])
}
