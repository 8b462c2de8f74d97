//! Copies from and to arrays. Pageable memory goes through staging in pieces, as with other copies.

use super::array::Array;
use super::profile::{Side, Work, WorkKind, bracketed};
use super::stream::{Stream, Turn};
use super::{Client, CudaResult, Location};
use torpor_proto::command::{ArrayCopy, CopyEnd, END_IN_ARRAY, END_IN_MEMORY};
use torpor_proto::error::CudaError;

/// One side of a copy.
#[derive(Clone, Copy)]
pub enum BoxSide {
    /// First address, bytes from row to row, rows from slice to slice.
    Memory(u64, u64, u64),
    /// From a byte of each row, a row and a slice on.
    Array(&'static Array, [u64; 3]),
}

/// Bytes of a row, rows, slices.
type Lengths = [u64; 3];

impl BoxSide {
    /// Whether it is an array.
    #[must_use]
    pub fn is_array(&self) -> bool {
        matches!(self, Self::Array(..))
    }

    /// The side so many bytes, rows and slices further.
    fn at(self, [x, y, z]: Lengths) -> Self {
        match self {
            Self::Memory(address, pitch, height) => {
                Self::Memory(address + (z * height + y) * pitch + x, pitch, height)
            }
            Self::Array(array, [bytes, row, slice]) => Self::Array(array, [bytes + x, row + y, slice + z]),
        }
    }

    /// Bytes from the first one to the end of the last row, in memory.
    fn reach(pitch: u64, slice_rows: u64, [width, rows, slices]: Lengths) -> Option<u64> {
        let full_rows = (slices - 1).checked_mul(slice_rows)?.checked_add(rows - 1)?;
        full_rows.checked_mul(pitch)?.checked_add(width)
    }

    /// The side in a command, and where it lies, if it is no array.
    fn resolve(self, client: &Client, lengths: Lengths) -> CudaResult<(CopyEnd, Option<Location>)> {
        let [width, rows, slices] = lengths;
        match self {
            Self::Array(array, at @ [x_bytes, y, z]) => {
                let (fits, element) = (array.shape().extent(), array.shape().element_bytes());
                let lies = |index: usize| {
                    at[index].checked_add(lengths[index]).is_some_and(|end| end <= fits[index])
                };
                if !(0..3).all(lies) || !x_bytes.is_multiple_of(element) || !width.is_multiple_of(element) {
                    return Err(CudaError::INVALID_VALUE);
                }
                let (array, level) = array.place();
                let place = END_IN_ARRAY;
                Ok((CopyEnd { place, array, level, x_bytes, y, z, ..CopyEnd::default() }, None))
            }
            Self::Memory(address, pitch, height) => {
                let is_narrow = (rows * slices > 1 && pitch < width) || (slices > 1 && height < rows);
                let reach = Self::reach(pitch, height, lengths).filter(|_| !is_narrow);
                let location = client.locate(address, reach.ok_or(CudaError::INVALID_VALUE)?);
                let (Location::Device(address) | Location::Pinned(address) | Location::Pageable(address)) =
                    location;
                let (pitch, height) = (pitch.max(width), height.max(rows));
                let end = CopyEnd { place: END_IN_MEMORY, address, pitch, height, ..CopyEnd::default() };
                Ok((end, Some(location)))
            }
        }
    }
}

/// A copy of which at least one side is an array.
#[derive(Clone, Copy)]
pub struct BoxCopy {
    /// What is written.
    pub destination: BoxSide,
    /// What is read.
    pub source: BoxSide,
    /// Bytes of a row, rows, slices.
    pub lengths: [u64; 3],
}

impl BoxCopy {
    fn command(&self, client: &Client, stream: u32) -> CudaResult<(ArrayCopy, [Option<Location>; 2])> {
        let [width_bytes, height, depth] = self.lengths;
        let (destination, to) = self.destination.resolve(client, self.lengths)?;
        let (source, from) = self.source.resolve(client, self.lengths)?;
        let command = ArrayCopy { destination, source, width_bytes, height, depth, stream, reserved: 0 };
        Ok((command, [to, from]))
    }
}

impl Client {
    /// Copies from or to an array in a stream's order. `waits` makes it the synchronous kind.
    ///
    /// # Errors
    /// `INVALID_VALUE` for what does not lie in the array, or a row wider than its pitch; `STREAM_CAPTURE_UNSUPPORTED` while the
    /// stream is captured; those of earlier posted commands.
    ///
    /// # Safety
    /// Pageable addresses are valid for all rows, as for the CUDA function this serves.
    pub unsafe fn copy_box(
        &'static self,
        copy: &BoxCopy,
        stream: &'static Stream,
        waits: bool,
    ) -> CudaResult<()> {
        if copy.lengths.contains(&0) {
            return self.check();
        }
        stream.refuse_capture()?;
        let (command, places) = copy.command(self, stream.number)?;
        let side = |place: Option<Location>| place.map_or(Side::Device, Location::side);
        let bytes = copy.lengths.iter().fold(1, |product: u64, &length| product.saturating_mul(length));
        let [to, from] = places;
        let work = || Work::Copy { from: side(from), to: side(to), bytes };
        let is_between_devices = waits && self.wait_for_owners(stream, places.into_iter().flatten())?;
        let is_pageable = |place| matches!(place, Some(Location::Pageable(_)));
        if is_pageable(to) {
            // SAFETY: the caller's promise.
            return unsafe { self.take_box(copy, stream) };
        }
        if is_pageable(from) {
            // SAFETY: the caller's promise.
            bracketed(WorkKind::Copies, stream, work, || unsafe { self.send_box(copy, stream) })?;
        } else {
            bracketed(WorkKind::Copies, stream, work, || stream.post(self, &command, &[]))?;
        }
        let is_host = |place| matches!(place, Some(Location::Pageable(_) | Location::Pinned(_)));
        if is_between_devices || (waits && (is_host(to) || is_host(from))) {
            stream.synchronize_posted(self)
        } else {
            Ok(())
        }
    }

    /// From pageable memory into an array.
    unsafe fn send_box(&'static self, copy: &BoxCopy, stream: &'static Stream) -> CudaResult<()> {
        let turn = Turn::take(stream)?;
        for (at, lengths) in pieces(copy.lengths, self.upload_bytes()) {
            let BoxSide::Memory(from, pitch, height) = copy.source.at(at) else {
                return Err(CudaError::INVALID_VALUE);
            };
            let [width, rows, slices] = lengths;
            let mut bytes = Vec::with_capacity((width * rows * slices) as usize);
            for row in (0..slices).flat_map(|slice| (0..rows).map(move |row| slice * height + row)) {
                let row: *const u8 = std::ptr::with_exposed_provenance((from + row * pitch) as usize);
                // SAFETY: the caller's promise for the whole box.
                bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(row, width as usize) });
            }
            self.stage_for_worker(&bytes, |staged, _, _| {
                let source = BoxSide::Memory(staged, width, rows);
                let piece = BoxCopy { destination: copy.destination.at(at), source, lengths };
                stream.post_in_turn(self, &piece.command(self, stream.number)?.0, &[], &turn)
            })?;
        }
        Ok(())
    }

    /// From an array into pageable memory; waits for it.
    unsafe fn take_box(&'static self, copy: &BoxCopy, stream: &'static Stream) -> CudaResult<()> {
        let turn = Turn::take(stream)?;
        for (at, lengths) in pieces(copy.lengths, self.download_bytes()) {
            let BoxSide::Memory(to, pitch, height) = copy.destination.at(at) else {
                return Err(CudaError::INVALID_VALUE);
            };
            let [width, rows, slices] = lengths;
            let post = |staged| {
                let destination = BoxSide::Memory(staged, width, rows);
                let piece = BoxCopy { destination, source: copy.source.at(at), lengths };
                stream.post_in_turn(self, &piece.command(self, stream.number)?.0, &[], &turn)
            };
            self.receive(stream, post, |staged| {
                for (index, row) in
                    (0..slices).flat_map(|slice| (0..rows).map(move |row| slice * height + row)).enumerate()
                {
                    let row: *mut u8 = std::ptr::with_exposed_provenance_mut((to + row * pitch) as usize);
                    // SAFETY: the caller's promise for the whole box; the piece lies in the chunk, which is this copy's alone.
                    unsafe {
                        std::ptr::copy_nonoverlapping(
                            staged.add(index * width as usize),
                            row,
                            width as usize,
                        );
                    }
                }
            })?;
        }
        self.write_text();
        self.check()
    }
}

/// The parts of a box that have so many bytes at most, each with where it begins.
fn pieces([width, rows, slices]: Lengths, most_bytes: u64) -> Vec<(Lengths, Lengths)> {
    let wide = width.min(most_bytes & !(ELEMENT_BYTES - 1));
    let high = if wide < width { 1 } else { rows.min((most_bytes / wide).max(1)) };
    let deep = if high < rows { 1 } else { slices.min((most_bytes / (wide * high)).max(1)) };
    let mut pieces = Vec::new();
    for z in (0..slices).step_by(deep as usize) {
        for y in (0..rows).step_by(high as usize) {
            for x in (0..width).step_by(wide as usize) {
                let lengths = [wide.min(width - x), high.min(rows - y), deep.min(slices - z)];
                pieces.push(([x, y, z], lengths));
            }
        }
    }
    pieces
}

/// No element has more, and each divides it.
const ELEMENT_BYTES: u64 = 16;

/// One side of a copy of consecutive bytes. An array's rows follow each other.
#[derive(Clone, Copy)]
pub enum LineSide {
    /// First address.
    Memory(u64),
    /// From this byte of a row on.
    Array(&'static Array, u64, u64),
}

impl LineSide {
    /// Bytes of a row, if there are rows.
    fn row_bytes(self) -> Option<u64> {
        match self {
            Self::Memory(_) => None,
            Self::Array(array, ..) => Some(array.shape().extent()[0]),
        }
    }

    /// Which byte of a row comes after so many.
    fn offset(self, done: u64) -> u64 {
        match (self, self.row_bytes()) {
            (Self::Array(_, x, _), Some(row)) => (x + done) % row,
            _ => 0,
        }
    }

    fn holds(self, bytes: u64) -> bool {
        let Self::Array(array, x, y) = self else { return true };
        let [row, rows, _] = array.shape().extent();
        let end = y.checked_mul(row).and_then(|at| at.checked_add(x)?.checked_add(bytes));
        end.is_some_and(|end| end <= row * rows)
    }

    fn at(self, done: u64, width: u64) -> BoxSide {
        match (self, self.row_bytes()) {
            (Self::Array(array, x, y), Some(row)) => {
                BoxSide::Array(array, [(x + done) % row, y + (x + done) / row, 0])
            }
            (Self::Memory(address) | Self::Array(_, address, _), _) => {
                BoxSide::Memory(address + done, width, 1)
            }
        }
    }
}

/// The boxes that consecutive bytes are in, in both.
fn boxes(destination: LineSide, source: LineSide, bytes: u64) -> Vec<BoxCopy> {
    let (mut done, mut boxes) = (0, Vec::new());
    let sides = [destination, source];
    let mut rows = sides.iter().filter_map(|side| side.row_bytes());
    let row = rows.next().filter(|first| rows.all(|other| other == *first));
    while done < bytes {
        let left = bytes - done;
        let is_at_row = sides.iter().all(|side| side.offset(done) == 0);
        let lengths = match row.filter(|row| is_at_row && left >= *row) {
            Some(row) => [row, left / row, 1],
            None => {
                let of_row = |side: &LineSide| Some(side.row_bytes()? - side.offset(done));
                [sides.iter().filter_map(of_row).fold(left, u64::min), 1, 1]
            }
        };
        let [destination, source] = sides.map(|side| side.at(done, lengths[0]));
        boxes.push(BoxCopy { destination, source, lengths });
        done += lengths[0] * lengths[1];
    }
    boxes
}

impl Client {
    /// Copies consecutive bytes from or to an array (`cuMemcpyHtoA` and its relatives). As [`Self::copy_box`].
    ///
    /// # Errors
    /// As [`Self::copy_box`].
    ///
    /// # Safety
    /// As [`Self::copy_box`].
    pub unsafe fn copy_line(
        &'static self,
        [destination, source]: [LineSide; 2],
        bytes: u64,
        stream: &'static Stream,
        waits: bool,
    ) -> CudaResult<()> {
        if !destination.holds(bytes) || !source.holds(bytes) {
            return Err(CudaError::INVALID_VALUE);
        }
        // SAFETY: the caller's promise.
        boxes(destination, source, bytes)
            .iter()
            .try_for_each(|copy| unsafe { self.copy_box(copy, stream, waits) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_are_the_whole_once(
            width in 1..200_u64, rows in 1..20_u64, slices in 1..6_u64, most in 16..4000_u64,
        ) {
            let mut seen = vec![0_u8; (width * rows * slices) as usize];
            for ([x, y, z], [wide, high, deep]) in pieces([width, rows, slices], most) {
                prop_assert!(wide * high * deep <= most);
                for slice in z..z + deep {
                    for row in y..y + high {
                        for byte in x..x + wide {
                            seen[((slice * rows + row) * width + byte) as usize] += 1;
                        }
                    }
                }
            }
            prop_assert!(seen.iter().all(|&times| times == 1));
        }
    }
}
