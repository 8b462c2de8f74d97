//! A client's state ([`Checkpoint`]) as it is handed from worker to worker: sealed shared memory that begins with a word which
//! says whether it still holds.
//!
//! A state holds until something happens to the client that it does not tell of. The session that serves the client makes it
//! void *before* that happens, by one store. So whatever instruction a worker was killed at, a state that holds afterwards is what
//! the client is: nothing of it was executed since. The word lies where no client can write it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use torpor_proto::control::migration::Checkpoint;
use torpor_proto::control::{CHECKPOINT_FORM, Message};
use torpor_proto::mapping::{Mapping, check_sealed, create_sealed};

/// The longest state: more than the records of all graphs and the chunks of all memory that a client can have.
const MAX_BYTES: u64 = 2 << 30;

const WORD_BYTES: u64 = size_of::<u64>() as u64;

/// Before the message: whether it holds, and what form it has.
const HEAD_BYTES: u64 = 2 * WORD_BYTES;

/// The word of a state that holds; all others are those of void ones.
const HOLDS: u64 = u64::from_le_bytes(*b"it holds");

/// Writes a state, which holds.
///
/// # Errors
/// The kernel's.
pub(crate) fn write(state: &Checkpoint) -> io::Result<OwnedFd> {
    let bytes = state.encode_to_vec();
    let file = File::from(create_sealed("torpor-client", HEAD_BYTES + bytes.len() as u64)?);
    file.write_all_at(&bytes, HEAD_BYTES)?;
    file.write_all_at(&CHECKPOINT_FORM.to_ne_bytes(), WORD_BYTES)?;
    file.write_all_at(&HOLDS.to_ne_bytes(), 0)?;
    Ok(file.into())
}

/// Reads a state.
///
/// # Errors
/// `InvalidData` if it is none, or none of this release, `FileTooLarge`, or the kernel's.
pub(crate) fn read(file: &OwnedFd) -> io::Result<Checkpoint> {
    let file = File::from(file.try_clone()?);
    let bytes = file.metadata()?.len();
    check_sealed(&file, bytes)?;
    if bytes > MAX_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let encoded_bytes = bytes.checked_sub(HEAD_BYTES).ok_or(io::ErrorKind::InvalidData)?;
    let mut form = [0; WORD_BYTES as usize];
    file.read_exact_at(&mut form, WORD_BYTES)?;
    if u64::from_ne_bytes(form) != CHECKPOINT_FORM {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a worker of another release wrote it"));
    }
    let mut encoded = vec![0; encoded_bytes as usize];
    file.read_exact_at(&mut encoded, HEAD_BYTES)?;
    Checkpoint::decode(encoded.as_slice()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Whether a state holds. Once the worker that could make it void is dead, the answer is the last.
pub(crate) fn holds(file: &OwnedFd) -> bool {
    let mut word = [0; WORD_BYTES as usize];
    let read = rustix::io::pread(file, &mut word, 0);
    read == Ok(word.len()) && u64::from_ne_bytes(word) == HOLDS
}

/// How long a file is; 0 if the kernel does not say.
pub(crate) fn bytes(file: impl AsFd) -> u64 {
    rustix::fs::fstat(file).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0))
}

/// What makes a state void.
#[derive(Debug)]
pub(crate) struct Pledge(Mapping);

impl Pledge {
    /// Of a state.
    ///
    /// # Errors
    /// The kernel's, or `InvalidData` if it is none.
    pub(crate) fn of(file: impl AsFd) -> io::Result<Self> {
        let bytes = bytes(&file);
        check_sealed(&file, bytes)?;
        if bytes < WORD_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self(Mapping::anywhere(file, WORD_BYTES as usize)?))
    }

    /// It tells no longer what the client is.
    #[inline]
    pub(crate) fn make_void(&self) {
        // SAFETY: the mapping is as long as the word, aligned to a page, and lives as long as self; everybody who has it mapped
        // uses it as this atomic alone.
        let word = unsafe { self.0.address().cast::<AtomicU64>().as_ref() };
        // SYNC POINT void: before what is done next can be seen anywhere. Who reads it waits for this process's end first.
        word.store(0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_holds_until_whoever_has_its_pledge_makes_it_void() {
        let state = Checkpoint { words_taken: 7, ..Checkpoint::default() };
        let file = write(&state).unwrap();
        assert!(holds(&file));
        assert_eq!(read(&file).unwrap(), state);
        let pledge = Pledge::of(&file).unwrap();
        assert!(holds(&file));
        pledge.make_void();
        assert!(!holds(&file));
        assert_eq!(read(&file).unwrap(), state);
    }

    #[test]
    fn a_state_of_another_form_is_not_read() {
        let file = write(&Checkpoint { words_taken: 7, ..Checkpoint::default() }).unwrap();
        let other = (CHECKPOINT_FORM + 1).to_ne_bytes();
        rustix::io::pwrite(&file, &other, WORD_BYTES).unwrap();
        assert_eq!(read(&file).unwrap_err().to_string(), "a worker of another release wrote it");
    }

    #[test]
    fn what_is_no_state_holds_nothing() {
        let short = create_sealed("short", 3).unwrap();
        assert!(!holds(&short) && Pledge::of(&short).is_err() && read(&short).is_err());
        let empty = create_sealed("empty", 100).unwrap();
        assert!(!holds(&empty));
    }
}
