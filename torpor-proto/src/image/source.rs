//! Where an image is read from: a bounded slice, or memory behind a bare pointer.
//!
//! The code that follows an image's headers is written once, over [`Source`]. A slice refuses everything outside
//! itself. A bare pointer cannot know where its memory ends; it only refuses what lies beyond
//! [`MAX_IMAGE_BYTES`].

use super::{ImageError, MAX_IMAGE_BYTES, ptx};

/// Bytes that can be looked at piece by piece.
pub(super) trait Source<'a>: Copy {
    /// The `length` bytes from `offset` on; `what` names them in the error.
    fn bytes(self, what: &'static str, offset: u64, length: u64) -> Result<&'a [u8], ImageError>;

    /// The text from the start up to and including its first NUL, if every byte of it may occur in text.
    fn text(self) -> Result<&'a [u8], ImageError>;
}

/// `offset + length`, if it is within the limit for images.
fn end_of(what: &'static str, offset: u64, length: u64) -> Result<u64, ImageError> {
    let end = offset.saturating_add(length);
    if end > MAX_IMAGE_BYTES {
        return Err(ImageError::TooLarge { what, bytes: end, maximum: MAX_IMAGE_BYTES });
    }
    Ok(end)
}

impl<'a> Source<'a> for &'a [u8] {
    fn bytes(self, what: &'static str, offset: u64, length: u64) -> Result<&'a [u8], ImageError> {
        let end = end_of(what, offset, length)?;
        let truncated = ImageError::Truncated { what, end, available: self.len() as u64 };
        let (Ok(start), Ok(end)) = (usize::try_from(offset), usize::try_from(end)) else {
            return Err(truncated);
        };
        self.get(start..end).ok_or(truncated)
    }

    fn text(self) -> Result<&'a [u8], ImageError> {
        for (index, &byte) in self.iter().enumerate() {
            if byte == 0 && index > 0 {
                return self.bytes("text", 0, index as u64 + 1);
            }
            if !ptx::is_text(byte) {
                return Err(unrecognised(self));
            }
        }
        let length = self.len() as u64;
        Err(ImageError::Truncated {
            what: "NUL-terminated text",
            end: length.saturating_add(1),
            available: length,
        })
    }
}

/// Memory of this process that starts at a pointer and ends nobody says where.
#[derive(Clone, Copy)]
pub(super) struct Unbounded {
    start: *const u8,
}

impl Unbounded {
    /// Memory that starts at `start`.
    ///
    /// # Safety
    /// A complete image lies at `start`, or text, or at least four readable bytes that are neither; whatever the
    /// headers found there span is readable and stays unchanged as long as the slices made from this are used.
    pub(super) unsafe fn new(start: *const u8) -> Self {
        Self { start }
    }
}

impl Source<'static> for Unbounded {
    fn bytes(self, what: &'static str, offset: u64, length: u64) -> Result<&'static [u8], ImageError> {
        end_of(what, offset, length)?;
        // SAFETY: `new` promised that what the headers span is readable and stays; `end_of` keeps both numbers
        // below `isize::MAX`, and both fit in `usize` on the 64-bit targets Torpor has.
        Ok(unsafe { std::slice::from_raw_parts(self.start.add(offset as usize), length as usize) })
    }

    fn text(self) -> Result<&'static [u8], ImageError> {
        for index in 0..MAX_IMAGE_BYTES {
            // SAFETY: all bytes before `index` were text without a NUL, so `new` promises at least this one.
            let byte = unsafe { *self.start.add(index as usize) };
            if byte == 0 && index > 0 {
                return self.bytes("text", 0, index + 1);
            }
            if !ptx::is_text(byte) {
                // Only bytes already seen go into the message.
                return Err(unrecognised(self.bytes("text", 0, index + 1)?));
            }
        }
        Err(ImageError::TooLarge { what: "text", bytes: MAX_IMAGE_BYTES, maximum: MAX_IMAGE_BYTES })
    }
}

fn unrecognised(bytes: &[u8]) -> ImageError {
    let mut first = [0; 4];
    for (to, from) in first.iter_mut().zip(bytes) {
        *to = *from;
    }
    ImageError::Unrecognised { first: u32::from_le_bytes(first) }
}

/// The little-endian `u16` at `offset`, if it is inside.
pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|field| u16::from_le_bytes(*field))
}

/// The little-endian `u32` at `offset`, if it is inside.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|field| u32::from_le_bytes(*field))
}

/// The little-endian `u64` at `offset`, if it is inside.
pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|field| u64::from_le_bytes(*field))
}
