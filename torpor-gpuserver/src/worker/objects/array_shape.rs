//! What an array is like: its elements and extents, checked, and how much memory it counts as.

use torpor_proto::command::{ArrayCreate, CopyEnd};
use torpor_proto::error::CudaError;

/// `CUDA_ARRAY3D_LAYERED`, `_SURFACE_LDST`, `_CUBEMAP`, `_TEXTURE_GATHER`, `_COLOR_ATTACHMENT`.
const LAYERED: u32 = 1;
const SURFACE: u32 = 2;
const CUBEMAP: u32 = 4;
const KNOWN_FLAGS: u32 = LAYERED | SURFACE | CUBEMAP | 8 | 0x20;

/// Faces of a cube.
const FACES: u64 = 6;

/// Elements in each dimension, at most: what any GPU has (the driver may say less), so that no product overflows.
const MOST_ELEMENTS: [u64; 3] = [1 << 17, 1 << 17, 1 << 14];

/// What the driver's order of memory rounds rows, numbers of rows and arrays up to, as far as is known.
const ROW_BYTES: u64 = 64;
const ROWS: u64 = 8;
const ARRAY_BYTES: u64 = 64 << 10;

/// Bytes of an element of these (`CUarray_format`, `CU_AD_FORMAT_*`), `None` if it is none of those.
pub(crate) fn element_bytes(format: u32, channels: u32) -> Option<u64> {
    let bytes = match format {
        0x01 | 0x08 => 1,
        0x02 | 0x09 | 0x10 => 2,
        0x03 | 0x0a | 0x20 => 4,
        // Normalised numbers of 8 and 16 bits, whose names say the channels too.
        0xc0..=0xcb => {
            let of_name = [1, 2, 4][(format as usize - 0xc0) % 3];
            return (channels == of_name)
                .then(|| u64::from(of_name) * [1, 2][(format as usize - 0xc0) / 3 % 2]);
        }
        _ => return None,
    };
    matches!(channels, 1 | 2 | 4).then(|| bytes * u64::from(channels))
}

/// Bytes of a row, rows and slices (or layers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) row_bytes: u64,
    pub(crate) rows: u64,
    pub(crate) slices: u64,
}

/// The shape of an array.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArrayShape {
    element_bytes: u64,
    elements: [u64; 3],
    flags: u32,
    levels: u32,
}

impl ArrayShape {
    /// Of an array that is to be made.
    ///
    /// # Errors
    /// `CUDA_ERROR_NOT_SUPPORTED` for formats and flags that are not known, `CUDA_ERROR_INVALID_VALUE` for what is no array.
    pub(crate) fn new(array: &ArrayCreate) -> Result<Self, CudaError> {
        let &ArrayCreate { format, channels, flags, width, height, depth, levels, .. } = array;
        let element_bytes = element_bytes(format, channels).ok_or(CudaError::NOT_SUPPORTED)?;
        if flags & !KNOWN_FLAGS != 0 {
            return Err(CudaError::NOT_SUPPORTED);
        }
        let elements = [width, height, depth];
        let is_layered = flags & (LAYERED | CUBEMAP) != 0;
        let is_small = elements.iter().zip(MOST_ELEMENTS).all(|(&elements, most)| elements <= most);
        let is_flat = if is_layered { depth > 0 } else { depth == 0 || height > 0 };
        let is_cube = match flags & (LAYERED | CUBEMAP) {
            CUBEMAP => width == height && depth == FACES,
            flags if flags & CUBEMAP != 0 => width == height && depth.is_multiple_of(FACES),
            _ => true,
        };
        let longest = width.max(height).max(if is_layered { 0 } else { depth });
        if width == 0 || !is_small || !is_flat || !is_cube || levels > u64::BITS - longest.leading_zeros() {
            return Err(CudaError::INVALID_VALUE);
        }
        Ok(Self { element_bytes, elements, flags, levels })
    }

    /// Whether surface objects may be made of it.
    pub(crate) fn is_for_surfaces(&self) -> bool {
        self.flags & SURFACE != 0
    }

    /// Whether it is one with several levels.
    pub(crate) fn is_mipmapped(&self) -> bool {
        self.levels > 0
    }

    /// How many levels there are, at least one.
    pub(crate) fn levels(&self) -> u32 {
        self.levels.max(1)
    }

    /// One of its levels.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` if it has no such level.
    pub(crate) fn level(&self, level: u32) -> Result<Extent, CudaError> {
        if level >= self.levels() {
            return Err(CudaError::INVALID_VALUE);
        }
        let [width, height, depth] = self.elements;
        let shrunk = |elements: u64| (elements >> level).max(1);
        let is_layered = self.flags & (LAYERED | CUBEMAP) != 0;
        Ok(Extent {
            row_bytes: shrunk(width) * self.element_bytes,
            rows: shrunk(height),
            slices: if is_layered { depth } else { shrunk(depth) },
        })
    }

    /// Device memory that it counts as: the driver does not say how much it takes.
    pub(crate) fn bytes(&self) -> u64 {
        let of_level = |level| {
            self.level(level).map_or(0, |Extent { row_bytes, rows, slices }| {
                let rows = if rows == 1 { 1 } else { rows.next_multiple_of(ROWS) };
                row_bytes.next_multiple_of(ROW_BYTES) * rows * slices
            })
        };
        (0..self.levels()).map(of_level).sum::<u64>().next_multiple_of(ARRAY_BYTES)
    }

    /// Whether a box from one end of a copy lies in the array.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` if not.
    pub(crate) fn check_box(
        &self,
        end: &CopyEnd,
        (width_bytes, height, depth): (u64, u64, u64),
    ) -> Result<(), CudaError> {
        let Extent { row_bytes, rows, slices } = self.level(end.level)?;
        let fits = |at: u64, length: u64, most: u64| at.checked_add(length).is_some_and(|end| end <= most);
        let is_whole =
            end.x_bytes.is_multiple_of(self.element_bytes) && width_bytes.is_multiple_of(self.element_bytes);
        let lies = fits(end.x_bytes, width_bytes, row_bytes)
            && fits(end.y, height, rows)
            && fits(end.z, depth, slices);
        if is_whole && lies { Ok(()) } else { Err(CudaError::INVALID_VALUE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FLOAT: u32 = 0x20;

    fn array(width: u64, height: u64, depth: u64) -> ArrayCreate {
        ArrayCreate { format: FLOAT, channels: 1, width, height, depth, ..ArrayCreate::default() }
    }

    #[test]
    fn what_is_no_array_is_refused() {
        let refused = |array: ArrayCreate| ArrayShape::new(&array).map(drop);
        let invalid = Err(CudaError::INVALID_VALUE);
        for (array, why) in [
            (array(0, 4, 0), "no elements"),
            (array(4, 0, 4), "slices without rows"),
            (array(1 << 18, 0, 0), "too wide"),
            (array(u64::MAX, u64::MAX, u64::MAX), "far too large"),
            (ArrayCreate { flags: LAYERED, ..array(4, 4, 0) }, "layered without layers"),
            (ArrayCreate { flags: CUBEMAP, ..array(4, 4, 5) }, "a cube with five faces"),
            (ArrayCreate { flags: CUBEMAP, ..array(4, 8, 6) }, "no cube"),
            (ArrayCreate { levels: 4, ..array(4, 4, 0) }, "more levels than halvings"),
        ] {
            assert_eq!(refused(array), invalid, "{why}");
        }
        for array in [
            ArrayCreate { format: 0x91, ..array(4, 4, 0) },
            ArrayCreate { channels: 3, ..array(4, 4, 0) },
            ArrayCreate { format: 0xc1, ..array(4, 4, 0) },
            ArrayCreate { flags: 0x40, ..array(4, 4, 0) },
        ] {
            assert_eq!(refused(array), Err(CudaError::NOT_SUPPORTED));
        }
        assert_eq!(refused(ArrayCreate { levels: 3, ..array(4, 4, 0) }), Ok(()));
        assert_eq!(refused(ArrayCreate { flags: LAYERED, ..array(4, 0, 3) }), Ok(()));
    }

    #[test]
    fn levels_shrink_and_layers_do_not() {
        let shape = |flags| ArrayShape::new(&ArrayCreate { flags, levels: 3, ..array(8, 4, 2) }).unwrap();
        let extent = |row_bytes, rows, slices| Ok(Extent { row_bytes, rows, slices });
        assert_eq!(shape(0).level(0), extent(32, 4, 2));
        assert_eq!(shape(0).level(2), extent(8, 1, 1));
        assert_eq!(shape(LAYERED).level(2), extent(8, 1, 2));
        assert_eq!(shape(0).level(3), Err(CudaError::INVALID_VALUE));
    }

    #[test]
    fn normalised_formats_say_their_channels() {
        let elements = |format| [1, 2, 4].map(|channels| element_bytes(format, channels));
        assert_eq!(elements(0xc0), [Some(1), None, None]);
        assert_eq!(elements(0xc2), [None, None, Some(4)]);
        assert_eq!(elements(0xc5), [None, None, Some(8)]);
        assert_eq!(elements(0xc8), [None, None, Some(4)]);
        assert_eq!(elements(0xcb), [None, None, Some(8)]);
        assert_eq!(elements(FLOAT), [Some(4), Some(8), Some(16)]);
    }

    proptest! {
        #[test]
        fn it_counts_as_at_least_what_it_holds(
            width: u64, height: u64, depth: u64, flags in 0..64_u32, levels in 0..20_u32,
        ) {
            let small = |number: u64, bits: u32| number >> (64 - bits);
            let array = ArrayCreate { flags, levels, ..array(small(width, 18), small(height, 18), small(depth, 15)) };
            if let Ok(shape) = ArrayShape::new(&array) {
                let whole = shape.level(0).unwrap();
                prop_assert!(shape.bytes() >= whole.row_bytes * whole.rows * whole.slices);
                let all = (whole.row_bytes, whole.rows, whole.slices);
                prop_assert_eq!(shape.check_box(&CopyEnd::default(), all), Ok(()));
                for end in [
                    CopyEnd { x_bytes: 4, ..CopyEnd::default() },
                    CopyEnd { y: 1, ..CopyEnd::default() },
                    CopyEnd { z: u64::MAX, ..CopyEnd::default() },
                ] {
                    prop_assert_eq!(shape.check_box(&end, all), Err(CudaError::INVALID_VALUE));
                }
            }
        }
    }
}
