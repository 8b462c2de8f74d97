//! Whether bytes are an image, and the one that they are named for: nothing depends on who wrote them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use torpor_proto::image::{Image as Parsed, ImageKind, MAX_IMAGE_BYTES, MAX_PAYLOAD_BYTES, fatbin};

/// BLAKE3 of an image's bytes.
pub(crate) type ImageHash = [u8; 32];

/// A file's contents, if they are what they should be.
pub(crate) fn read_checked(file: &File, hash: ImageHash, bytes: u64) -> Option<Vec<u8>> {
    if bytes > MAX_IMAGE_BYTES || file.metadata().ok()?.len() != bytes {
        return None;
    }
    let mut contents = vec![0; usize::try_from(bytes).ok()?];
    file.read_exact_at(&mut contents, 0).ok()?;
    (blake3::hash(&contents) == hash).then_some(contents)
}

/// Whether the bytes are one complete image and nothing else: the driver is never told how long it is.
pub(crate) fn is_whole(contents: &[u8]) -> bool {
    let Ok(parsed) = Parsed::parse(contents) else { return false };
    let inside = match parsed.kind {
        ImageKind::Container => fatbin::entries(contents)
            .is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(is_bounded))),
        // What its inputs are nobody reads here: a job of the compiler links them.
        ImageKind::Elf | ImageKind::Bundle => true,
        ImageKind::Ptx => contents.last() == Some(&0),
    };
    inside && parsed.bytes.len() == contents.len()
}

/// Whether the driver, which unpacks an entry itself, gets no more out of it than this program would.
fn is_bounded(entry: fatbin::Entry<'_>) -> bool {
    entry.compressed_bytes == 0 || entry.plain_bytes <= MAX_PAYLOAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_the_driver_would_unpack_to_more_than_may_be_is_refused() {
        let container = |plain_bytes: u64| {
            let mut entry = vec![0; 0x40];
            entry[0] = 2;
            entry[4] = 0x40;
            entry[8] = 8;
            entry[16] = 8;
            entry[28] = 90;
            entry[40..48].copy_from_slice(&fatbin::FLAG_ZSTD.to_le_bytes());
            entry[56..64].copy_from_slice(&plain_bytes.to_le_bytes());
            entry.extend([0; 8]);
            let mut bytes = b"\x50\xed\x55\xba\x01\0\x10\0".to_vec();
            bytes.extend((entry.len() as u64).to_le_bytes());
            bytes.extend(entry);
            bytes
        };
        assert!(is_whole(&container(MAX_PAYLOAD_BYTES)));
        assert!(!is_whole(&container(MAX_PAYLOAD_BYTES + 1)));
        assert!(!is_whole(&container(1 << 42)));
    }
}
