//! `cuMemcpy2D` and `cuMemcpy3D`: a box of bytes, rows and slices, whose sides may be arrays.

use std::sync::Arc;

use super::copy::{Demand, issue_with};
use super::shape::{Shape, Side};
use crate::abi::{In, Memcpy2d, Memcpy3d};
use crate::array::Array;
use crate::error::{CudaError, Result};
use crate::machine::Machine;
use crate::stream;

/// One side of a box.
struct End {
    kind: u32,
    host: u64,
    device: u64,
    array: u64,
    /// In bytes, rows and slices.
    at: [usize; 3],
    pitch: usize,
    height: usize,
}

impl End {
    /// `CU_MEMORYTYPE_HOST`, `…_DEVICE`, `…_ARRAY`, `…_UNIFIED`.
    fn find(&self, machine: &Machine, lengths: [u64; 3]) -> Result<(Side, Option<Arc<Array>>)> {
        let [x, y, z] = self.at.map(|number| number as u64);
        let [width, rows, slices] = lengths;
        let address = match self.kind {
            1 => self.host,
            2 | 4 => self.device,
            3 => {
                let array = machine.arrays.find(self.array)?;
                if !array.holds([x, y, z], lengths) {
                    return Err(CudaError::INVALID_VALUE);
                }
                let address = array.start() + z * array.slice() + y * array.pitch() + x;
                return Ok((Side { address, pitch: array.pitch(), slice: array.slice() }, Some(array)));
            }
            _ => return Err(CudaError::INVALID_VALUE),
        };
        let (pitch, height) = (self.pitch as u64, self.height as u64);
        let is_narrow = (pitch < width && (rows > 1 || slices > 1)) || (height < rows && slices > 1);
        let slice = pitch.checked_mul(height).filter(|_| !is_narrow);
        let side = slice.and_then(|slice| {
            let offset = z.checked_mul(slice)?.checked_add(y.checked_mul(pitch)?)?.checked_add(x)?;
            Some(Side { address: address.checked_add(offset)?, pitch, slice })
        });
        Ok((side.ok_or(CudaError::INVALID_VALUE)?, None))
    }
}

fn demand(target: u32, source: u32) -> Demand {
    match (target, source) {
        (2, 2) => Demand::BothOnDevice,
        (2, _) => Demand::TargetOnDevice,
        (_, 2) => Demand::SourceOnDevice,
        _ => Demand::Any,
    }
}

/// Copies a box of bytes, rows and slices from the second side to the first.
fn copy_box(
    machine: &'static Machine,
    [to, from]: &[End; 2],
    lengths: [usize; 3],
    stream: u64,
    wait: bool,
) -> Result {
    let lengths @ [width, rows, slices] = lengths.map(|length| length as u64);
    if lengths.contains(&0) {
        return stream::find(machine, stream).map(drop);
    }
    let ((target, to_array), (source, from_array)) =
        (to.find(machine, lengths)?, from.find(machine, lengths)?);
    let shape = Shape { target, source, width, rows, slices };
    issue_with(machine, shape, [to_array, from_array], demand(to.kind, from.kind), stream, wait)
}

pub fn two_dimensional(machine: &'static Machine, copy: In<Memcpy2d>, stream: u64, wait: bool) -> Result {
    let copy = copy.get()?;
    let to = End {
        kind: copy.dst_type,
        host: copy.dst_host,
        device: copy.dst_device,
        array: copy.dst_array,
        at: [copy.dst_x_bytes, copy.dst_y, 0],
        pitch: copy.dst_pitch,
        height: copy.height,
    };
    let from = End {
        kind: copy.src_type,
        host: copy.src_host,
        device: copy.src_device,
        array: copy.src_array,
        at: [copy.src_x_bytes, copy.src_y, 0],
        pitch: copy.src_pitch,
        height: copy.height,
    };
    copy_box(machine, &[to, from], [copy.width_bytes, copy.height, 1], stream, wait)
}

pub fn three_dimensional(machine: &'static Machine, copy: In<Memcpy3d>, stream: u64, wait: bool) -> Result {
    let copy = copy.get()?;
    if copy.src_lod != 0 || copy.dst_lod != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let to = End {
        kind: copy.dst_type,
        host: copy.dst_host,
        device: copy.dst_device,
        array: copy.dst_array,
        at: [copy.dst_x_bytes, copy.dst_y, copy.dst_z],
        pitch: copy.dst_pitch,
        height: copy.dst_height,
    };
    let from = End {
        kind: copy.src_type,
        host: copy.src_host,
        device: copy.src_device,
        array: copy.src_array,
        at: [copy.src_x_bytes, copy.src_y, copy.src_z],
        pitch: copy.src_pitch,
        height: copy.src_height,
    };
    copy_box(machine, &[to, from], [copy.width_bytes, copy.height, copy.depth], stream, wait)
}
