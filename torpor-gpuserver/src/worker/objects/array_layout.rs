//! How the contents of arrays lie in the host store: rows behind each other, without the driver's order, array behind array, in
//! chunks of the store. Many small arrays share a chunk. A box of rows lies in one chunk, so that one copy brings it.

use crate::chunk::CHUNK_BYTES;
use crate::worker::objects::array_shape::{ArrayShape, Extent};

/// What arrays begin at a multiple of, and levels.
const ALIGNMENT: u64 = 256;

/// A box of an array, all of whose rows lie behind each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) level: u32,
    /// First row.
    pub(crate) y: u64,
    /// First slice.
    pub(crate) z: u64,
    pub(crate) row_bytes: u64,
    pub(crate) rows: u64,
    pub(crate) slices: u64,
    /// Where it begins.
    pub(crate) at: u64,
}

impl Piece {
    /// Which chunk it lies in, and where there.
    pub(crate) fn place(&self) -> (usize, u64) {
        ((self.at / CHUNK_BYTES) as usize, self.at % CHUNK_BYTES)
    }

    /// Its length.
    pub(crate) fn bytes(&self) -> u64 {
        self.row_bytes * self.rows * self.slices
    }
}

/// The pieces of an array that begins there, and where it ends. No row is longer than a chunk.
pub(crate) fn pieces(shape: &ArrayShape, start: u64) -> (Vec<Piece>, u64) {
    let (mut pieces, mut at) = (Vec::new(), start);
    for level in 0..shape.levels() {
        let Ok(Extent { row_bytes, rows, slices }) = shape.level(level) else { continue };
        at = at.next_multiple_of(ALIGNMENT);
        let (mut y, mut z) = (0, 0);
        while z < slices {
            let room = CHUNK_BYTES - at % CHUNK_BYTES;
            let (whole, rows_there) = (room / (row_bytes * rows), room / row_bytes);
            let (high, deep) = match (y, whole) {
                (0, 1..) => (rows, whole.min(slices - z)),
                _ => (rows_there.min(rows - y), 1),
            };
            if high == 0 {
                at += room;
                continue;
            }
            let piece = Piece { level, y, z, row_bytes, rows: high, slices: deep, at };
            at += piece.bytes();
            y += high;
            if y == rows {
                (y, z) = (0, z + deep);
            }
            pieces.push(piece);
        }
    }
    (pieces, at.next_multiple_of(ALIGNMENT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use torpor_proto::command::ArrayCreate;

    proptest! {
        #[test]
        fn every_row_has_its_place_in_one_chunk(
            start in 0..20_000_u64,
            (width, height, depth) in (1..3000_u64, 0..600_u64, 0..12_u64),
            channels in prop::sample::select(vec![1, 2, 4]),
            (layered, levels) in (any::<bool>(), 0..5_u32),
        ) {
            let (flags, depth) = if layered { (1, depth.max(1)) } else { (0, depth) };
            let array = ArrayCreate { format: 0x20, channels, flags, width, height, depth, levels, ..ArrayCreate::default() };
            let Ok(shape) = ArrayShape::new(&array) else { return Ok(()) };
            let start = start * ALIGNMENT;
            let (pieces, end) = pieces(&shape, start);
            let mut rows = BTreeMap::new();
            for piece in &pieces {
                let first = piece.place().0 as u64;
                prop_assert!(piece.at >= start && piece.at + piece.bytes() <= end);
                prop_assert_eq!((piece.at + piece.bytes() - 1) / CHUNK_BYTES, first);
                for z in 0..piece.slices {
                    for y in 0..piece.rows {
                        let at = piece.at + (z * piece.rows + y) * piece.row_bytes;
                        prop_assert!(rows.insert((piece.level, piece.z + z, piece.y + y), at).is_none());
                        prop_assert!(piece.slices == 1 || piece.y == 0);
                    }
                }
            }
            let mut ends: Vec<_> = Vec::new();
            for level in 0..shape.levels() {
                let Extent { row_bytes, rows: high, slices } = shape.level(level).unwrap();
                for (z, y) in (0..slices).flat_map(|z| (0..high).map(move |y| (z, y))) {
                    let at = rows.remove(&(level, z, y));
                    prop_assert!(at.is_some());
                    ends.push((at.unwrap(), row_bytes));
                }
            }
            prop_assert!(rows.is_empty());
            ends.sort_unstable();
            prop_assert!(ends.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "no two overlap");
        }
    }
}
