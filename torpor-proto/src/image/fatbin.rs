//! Fatbin containers and their entries.
//!
//! ```text
//! container   0 u32 magic 0xba55ed50   4 u16 version (1)   6 u16 header bytes (16)   8 u64 body bytes
//! body        entries, one behind the other
//! entry       0 u16 kind   4 u32 header bytes   8 u32 stored bytes   16 u32 compressed bytes (0: stored plain)
//!            28 u32 sm    40 u64 flags         56 u64 plain bytes    then the payload, `stored bytes` long
//! ```
//! Headers of entries have 0x40 bytes, 0x70 for sm_100 and later, and others exist: a longer header is skipped, fields
//! that a shorter one lacks count as zero. Unknown kinds and flags are kept: cuFFT and cuSPARSE 13 have entries of kind 8 (LTO
//! intermediate code, flag 0x10000) that claim LZ4 and are something else, so they are only good for handing on.

use std::borrow::Cow;

use super::ImageError;
use super::payload::{self, Compression};
use super::source::{Source, u16_at, u32_at, u64_at};

/// The first word of a container.
pub const CONTAINER_MAGIC: u32 = 0xba55_ed50;
/// Bytes of a container's header.
pub(super) const CONTAINER_HEADER_BYTES: u64 = 16;
/// The shortest entry header that says how long the entry is and which GPU it is for.
const ENTRY_HEADER_MIN_BYTES: usize = 0x20;

/// To what the length of a payload is padded.
const PAYLOAD_ALIGN_BYTES: usize = 8;

/// Flag of an entry: its payload is an LZ4 block.
pub const FLAG_LZ4: u64 = 0x2000;
/// Flag of an entry: its payload is a zstd frame.
pub const FLAG_ZSTD: u64 = 0x8000;

/// Flag of an entry: its cubin is for one GPU alone (sm_90a). Four of PyTorch 2.11's containers have one beside a cubin for sm_90
/// with the same kernels.
pub const FLAG_ONE_GPU: u64 = 0x10_0000;

/// What an entry holds. Values that are not named here are kept as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryKind(pub u16);

impl EntryKind {
    /// PTX text.
    pub const PTX: Self = Self(1);
    /// A cubin.
    pub const CUBIN: Self = Self(2);
}

/// One entry of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it holds.
    pub kind: EntryKind,
    /// The GPU it is for: 90 for sm_90.
    pub sm: u32,
    /// Flags as stored: [`FLAG_LZ4`], [`FLAG_ZSTD`], and others of unknown meaning.
    pub flags: u64,
    /// The entry's whole header.
    pub header: &'a [u8],
    /// The payload as stored, with any padding behind it.
    pub stored: &'a [u8],
    /// How many bytes of `stored` are compressed data; 0 if they are not compressed.
    pub compressed_bytes: u32,
    /// How many bytes the decompressed payload has, as declared.
    pub plain_bytes: u64,
}

impl<'a> Entry<'a> {
    /// The payload, decompressed if it must be.
    ///
    /// # Errors
    /// A payload that declares more than [`MAX_PAYLOAD_BYTES`](super::MAX_PAYLOAD_BYTES) is refused before anything
    /// is allocated, one that decompresses to another size than it declares is refused, and so is an unknown compression.
    pub fn payload(&self) -> Result<Cow<'a, [u8]>, ImageError> {
        if self.compressed_bytes == 0 {
            return Ok(Cow::Borrowed(self.stored));
        }
        let compression = if self.flags & FLAG_ZSTD != 0 {
            Compression::Zstd
        } else if self.flags & FLAG_LZ4 != 0 {
            Compression::Lz4
        } else {
            return Err(ImageError::Malformed { what: "compression flags of a fatbin entry", offset: 40 });
        };
        let compressed = self.stored.bytes("compressed payload", 0, u64::from(self.compressed_bytes))?;
        payload::decompress(compression, compressed, self.plain_bytes).map(Cow::Owned)
    }

    /// The whole entry with its payload as it is, not compressed.
    ///
    /// # Errors
    /// As [`Self::payload`]; or the payload is longer than an entry can say.
    pub(super) fn plain(&self) -> Result<Vec<u8>, ImageError> {
        let payload = self.payload()?;
        let stored_bytes = payload.len().next_multiple_of(PAYLOAD_ALIGN_BYTES);
        let length = u32::try_from(stored_bytes).map_err(|_| ImageError::TooLarge {
            what: "fatbin entry payload",
            bytes: stored_bytes as u64,
            maximum: u32::MAX.into(),
        })?;
        let mut entry = self.header.to_vec();
        let mut put = |at: usize, field: &[u8]| {
            if let Some(place) = entry.get_mut(at..at + field.len()) {
                place.copy_from_slice(field);
            }
        };
        put(8, &length.to_le_bytes());
        put(16, &0_u32.to_le_bytes());
        put(40, &(self.flags & !(FLAG_LZ4 | FLAG_ZSTD)).to_le_bytes());
        put(56, &0_u64.to_le_bytes());
        entry.extend_from_slice(&payload);
        entry.resize(self.header.len() + stored_bytes, 0);
        Ok(entry)
    }
}

/// A container of whole entries, which may come in parts.
pub(super) fn container_of<'a>(parts: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let body_bytes: usize = parts.clone().map(<[u8]>::len).sum();
    let mut container = Vec::with_capacity(CONTAINER_HEADER_BYTES as usize + body_bytes);
    container.extend(CONTAINER_MAGIC.to_le_bytes());
    container.extend(1_u16.to_le_bytes());
    container.extend((CONTAINER_HEADER_BYTES as u16).to_le_bytes());
    container.extend((body_bytes as u64).to_le_bytes());
    parts.for_each(|part| container.extend_from_slice(part));
    container
}

/// The container at the start of `source`, with its header.
pub(super) fn container<'a, S: Source<'a>>(source: S) -> Result<&'a [u8], ImageError> {
    let header = source.bytes("container header", 0, CONTAINER_HEADER_BYTES)?;
    let damaged = |what, offset| ImageError::Malformed { what, offset };
    if u32_at(header, 0) != Some(CONTAINER_MAGIC) {
        return Err(damaged("container magic number", 0));
    }
    let header_bytes = u16_at(header, 6).map(u64::from).filter(|&bytes| bytes >= CONTAINER_HEADER_BYTES);
    let header_bytes = header_bytes.ok_or(damaged("container header size", 6))?;
    let body_bytes = u64_at(header, 8).ok_or(damaged("container size", 8))?;
    source.bytes("container", 0, header_bytes.saturating_add(body_bytes))
}

/// The entries of the container at the start of `bytes`, in stored order.
///
/// # Errors
/// If `bytes` does not hold a complete container. Each entry can be an error of its own; the first is the last item.
pub fn entries(bytes: &[u8]) -> Result<Entries<'_>, ImageError> {
    let container = container(bytes)?;
    let header_bytes = u16_at(container, 6).map_or(container.len(), usize::from);
    Ok(Entries { container, next: header_bytes })
}

/// Iterator over the entries of a container; see [`entries`].
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    container: &'a [u8],
    /// Where the next entry starts; the container's length when done.
    next: usize,
}

impl<'a> Entries<'a> {
    /// The entry that starts at `self.next`, and where it ends.
    fn entry(&self) -> Result<(Entry<'a>, usize), ImageError> {
        let rest = self.container.get(self.next..).unwrap_or_default();
        let damaged = |what| ImageError::Malformed { what, offset: self.next as u64 };
        let fixed = rest.first_chunk::<ENTRY_HEADER_MIN_BYTES>().ok_or(damaged("fatbin entry header"))?;
        let header_bytes = u32_at(fixed, 4).unwrap_or(0);
        if (header_bytes as usize) < ENTRY_HEADER_MIN_BYTES {
            return Err(damaged("fatbin entry header size"));
        }
        let stored_bytes = u64::from(u32_at(fixed, 8).unwrap_or(0));
        let header = rest.bytes("fatbin entry header", 0, u64::from(header_bytes))?;
        let stored = rest.bytes("fatbin entry payload", u64::from(header_bytes), stored_bytes)?;
        let entry = Entry {
            kind: EntryKind(u16_at(fixed, 0).unwrap_or(0)),
            sm: u32_at(fixed, 28).unwrap_or(0),
            flags: u64_at(header, 40).unwrap_or(0),
            header,
            stored,
            compressed_bytes: u32_at(fixed, 16).unwrap_or(0),
            plain_bytes: u64_at(header, 56).unwrap_or(0),
        };
        // Both lie inside the container, so the sum cannot overflow.
        Ok((entry, self.next + header.len() + stored.len()))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, ImageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.container.get(self.next..).unwrap_or_default();
        // What is too short for an entry and zero is padding.
        if rest.len() < ENTRY_HEADER_MIN_BYTES && rest.iter().all(|&byte| byte == 0) {
            return None;
        }
        match self.entry() {
            Ok((entry, end)) => {
                self.next = end;
                Some(Ok(entry))
            }
            Err(error) => {
                self.next = self.container.len();
                Some(Err(error))
            }
        }
    }
}
