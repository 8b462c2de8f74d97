//! The file of what was done to the index, in order: memory that the keeper holds, too, so that it outlives the server.
//!
//! A record is its length, a word, and then the message. The length is written last: a record that the server was killed over is none.

use rustix::fs::MemfdFlags;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use torpor_proto::control::Message;
use torpor_proto::control::keeper::Deed;

const WORD_BYTES: u64 = size_of::<u64>() as u64;

/// The file, while a server writes it.
#[derive(Debug)]
pub(super) struct DeedFile {
    file: File,
    end: u64,
}

impl DeedFile {
    /// An empty one.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn create() -> io::Result<Self> {
        let file = rustix::fs::memfd_create("torpor-deeds", MemfdFlags::CLOEXEC)?;
        Ok(Self { file: file.into(), end: 0 })
    }

    /// To be kept.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// How long it is.
    pub(super) fn bytes(&self) -> u64 {
        self.end
    }

    /// Writes one more. It counts when this returns.
    ///
    /// # Errors
    /// The kernel's: there is no memory.
    pub(super) fn append(&mut self, deed: &Deed) -> io::Result<()> {
        let bytes = deed.encode_to_vec();
        let length = bytes.len() as u64;
        self.file.write_all_at(&bytes, self.end + WORD_BYTES)?;
        // SYNC POINT deed: one word within a page, which the kernel copies as one or not at all.
        self.file.write_all_at(&length.to_ne_bytes(), self.end)?;
        self.end += (WORD_BYTES + length).next_multiple_of(WORD_BYTES);
        Ok(())
    }

    /// All that a server wrote into a file.
    ///
    /// # Errors
    /// The kernel's, or `InvalidData` if something is no record.
    pub(super) fn read(file: OwnedFd) -> io::Result<Vec<Deed>> {
        let file = File::from(file);
        let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, 0)?;
        let (mut deeds, mut rest) = (Vec::new(), bytes.as_slice());
        while let Some((word, behind)) = rest.split_first_chunk::<{ WORD_BYTES as usize }>() {
            let length = usize::try_from(u64::from_ne_bytes(*word)).map_err(io::Error::other)?;
            if length == 0 {
                break;
            }
            let deed = behind.get(..length).ok_or(io::ErrorKind::InvalidData)?;
            deeds
                .push(Deed::decode(deed).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?);
            rest = behind.get(length.next_multiple_of(WORD_BYTES as usize)..).unwrap_or_default();
        }
        Ok(deeds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use torpor_proto::control::keeper::deed;

    #[test]
    fn what_was_written_whole_is_read_and_what_was_not_is_none() {
        let touch = |client| Deed { deed: Some(deed::Deed::Touch(client)) };
        let mut file = DeedFile::create().unwrap();
        for client in [1, 300, 70_000] {
            file.append(&touch(client)).unwrap();
        }
        // Killed before the length was written.
        file.file.write_all_at(&[7; 5], file.end + WORD_BYTES).unwrap();
        let read = || DeedFile::read(file.file.try_clone().unwrap().into());
        assert_eq!(read().unwrap(), [touch(1), touch(300), touch(70_000)]);
        file.file.write_all_at(&100_u64.to_ne_bytes(), file.end).unwrap();
        assert_eq!(read().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
