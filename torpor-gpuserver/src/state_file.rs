//! A client's state ([`Checkpoint`]) as it is handed from worker to worker: sealed shared memory that begins with a word which
//! says whether it still holds, and with how far the client has been answered.
//!
//! A state holds as long as the client can be what it is by it and by the commands that were taken from its ring since. The session
//! that serves the client makes it void by one store *before* something happens that cannot be done again. So whatever instruction a
//! worker was killed at, a state that holds afterwards leads to what the client is. The words lie where no client can write them.

mod void;

pub(crate) use void::Void;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use torpor_proto::completion::{SLOTS, Sleeper};
use torpor_proto::control::migration::Checkpoint;
use torpor_proto::control::{CHECKPOINT_FORM, Message};
use torpor_proto::mapping::{Mapping, check_sealed, create_sealed};

/// What such files are called, for whoever looks at what a process shares.
pub(crate) const NAME: &str = "torpor-client";

/// The longest state: more than the records of all graphs and the chunks of all memory that a client can have.
const MAX_BYTES: u64 = 2 << 30;

const WORD_BYTES: u64 = size_of::<u64>() as u64;

/// Before the message.
#[repr(C)]
struct Head {
    /// Whether it holds.
    holds: AtomicU64,
    /// Not 0 once a command may have been executed since.
    outgrown: AtomicU64,
    /// What form it has.
    _form: AtomicU64,
    /// Of each completion slot, where in the ring the last command ends whose answer was begun to be given...
    begun: [AtomicU64; SLOTS],
    /// ...and the one whose answer was given.
    given: [AtomicU64; SLOTS],
    /// How much had been taken from the ring by then.
    taken: [AtomicU64; SLOTS],
}

const HEAD_BYTES: u64 = size_of::<Head>() as u64;
const FORM_AT: u64 = std::mem::offset_of!(Head, _form) as u64;

/// The word of a state that holds; all others are those of void ones, and may say [why](Void).
const HOLDS: u64 = u64::from_le_bytes(*b"it holds");

/// Writes a state, which holds.
///
/// # Errors
/// The kernel's.
pub(crate) fn write(state: &Checkpoint) -> io::Result<OwnedFd> {
    let bytes = state.encode_to_vec();
    // What is not written is 0: nobody was answered.
    let file = File::from(create_sealed(NAME, HEAD_BYTES + bytes.len() as u64)?);
    file.write_all_at(&bytes, HEAD_BYTES)?;
    file.write_all_at(&CHECKPOINT_FORM.to_ne_bytes(), FORM_AT)?;
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
    file.read_exact_at(&mut form, FORM_AT)?;
    if u64::from_ne_bytes(form) != CHECKPOINT_FORM {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a worker of another release wrote it"));
    }
    let mut encoded = vec![0; encoded_bytes as usize];
    file.read_exact_at(&mut encoded, HEAD_BYTES)?;
    Checkpoint::decode(encoded.as_slice()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Whether a state holds. Once the worker that could make it void is dead, the answer is the last.
pub(crate) fn holds(file: &OwnedFd) -> bool {
    first_word(file) == Some(HOLDS)
}

/// Why a state does not hold, if whoever made it void has said so.
pub(crate) fn void(file: &OwnedFd) -> Option<Void> {
    first_word(file).and_then(Void::of)
}

fn first_word(file: &OwnedFd) -> Option<u64> {
    let mut word = [0; WORD_BYTES as usize];
    let read = rustix::io::pread(file, &mut word, 0);
    (read == Ok(word.len())).then_some(u64::from_ne_bytes(word))
}

/// Whether a client may have done anything since it became this; so it is said of what cannot be read.
pub(crate) fn is_outgrown(file: &OwnedFd) -> bool {
    let mut word = [0; WORD_BYTES as usize];
    let read = rustix::io::pread(file, &mut word, std::mem::offset_of!(Head, outgrown) as u64);
    read != Ok(word.len()) || u64::from_ne_bytes(word) != 0
}

/// How long a file is; 0 if the kernel does not say.
pub(crate) fn bytes(file: impl AsFd) -> u64 {
    rustix::fs::fstat(file).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0))
}

/// Up to where each completion slot has been answered since a state was written, as whoever answers says.
#[derive(Clone, Debug)]
pub(crate) struct Answers([Answer; SLOTS]);

/// The last answer of a slot, by where its command ends.
#[derive(Clone, Copy, Debug, Default)]
struct Answer {
    begun: u64,
    given: u64,
    taken: u64,
}

impl Answers {
    /// Nobody has been.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self([Answer::default(); SLOTS])
    }

    /// Whether the command was answered that ends there in the ring; `None` if the worker died over its answer.
    pub(crate) fn given(&self, slot: u16, end: u64) -> Option<bool> {
        let Answer { begun, given, .. } = self.0.get(usize::from(slot)).copied().unwrap_or_default();
        if begun >= end && given < end { None } else { Some(given >= end) }
    }

    /// How much had been taken from the ring when the command was answered that ends there: whatever the program posted because of the
    /// answer lies behind that. `None` if the slot has been answered since.
    pub(crate) fn taken(&self, slot: u16, end: u64) -> Option<u64> {
        self.0.get(usize::from(slot)).filter(|answer| answer.given == end).map(|answer| answer.taken)
    }

    /// The command was answered that ends there, and so were all before it in that slot.
    #[cfg(test)]
    pub(crate) fn give(&mut self, slot: u16, end: u64, taken: u64) {
        self.0[usize::from(slot)] = Answer { begun: end, given: end, taken };
    }

    /// The worker died over the answer of the command that ends there.
    #[cfg(test)]
    pub(crate) fn tear(&mut self, slot: u16, end: u64) {
        self.0[usize::from(slot)].begun = end;
    }
}

/// What a session writes into a state that the server has.
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
        if bytes < HEAD_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self(Mapping::anywhere(file, HEAD_BYTES as usize)?))
    }

    /// It leads no longer to what the client is.
    #[inline]
    pub(crate) fn make_void(&self, why: Void) {
        // SYNC POINT void: before what is done next can be seen anywhere. Who reads it waits for this process's end first.
        self.head().holds.store(why as u64, Ordering::SeqCst);
    }

    /// The client does something that the state does not tell of, but leads to.
    #[inline]
    pub(crate) fn outgrow(&self) {
        self.head().outgrown.store(1, Ordering::SeqCst);
    }

    /// Whether it has done anything since, as far as anybody said.
    pub(crate) fn is_outgrown(&self) -> bool {
        self.head().outgrown.load(Ordering::SeqCst) != 0
    }

    /// Answers the command that ends there in the ring, by `answer`. Whoever sleeps for it is woken when the state says so: that may take the
    /// processor from this thread.
    #[inline]
    pub(crate) fn answer<'a>(
        &self,
        slot: u16,
        (end, taken): (u64, u64),
        answer: impl FnOnce() -> Sleeper<'a>,
    ) {
        let (head, slot) = (self.head(), usize::from(slot));
        if slot < SLOTS {
            // SYNC POINT answered: who reads them waits for this process's end first. If that comes in between, nobody knows.
            head.begun[slot].store(end, Ordering::SeqCst);
            head.taken[slot].store(taken, Ordering::SeqCst);
            let sleeper = answer();
            head.given[slot].store(end, Ordering::SeqCst);
            sleeper.wake();
        }
    }

    /// Up to where it has been answered.
    pub(crate) fn answers(&self) -> Answers {
        let head = self.head();
        let read = |word: &AtomicU64| word.load(Ordering::SeqCst);
        Answers(std::array::from_fn(|slot| Answer {
            begun: read(&head.begun[slot]),
            given: read(&head.given[slot]),
            taken: read(&head.taken[slot]),
        }))
    }

    fn head(&self) -> &Head {
        // SAFETY: the mapping is as long as a head, aligned to a page, and lives as long as self; a head is made of atomics, for
        // which every bit pattern is valid, and everybody who has it mapped uses it as these alone.
        unsafe { self.0.address().cast::<Head>().as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_holds_until_whoever_has_its_pledge_makes_it_void() {
        let state = Checkpoint { words_taken: 7, ..Checkpoint::default() };
        let file = write(&state).unwrap();
        assert!(holds(&file) && void(&file).is_none());
        assert_eq!(read(&file).unwrap(), state);
        let pledge = Pledge::of(&file).unwrap();
        assert!(holds(&file));
        pledge.make_void(Void::Freed);
        assert!(!holds(&file));
        assert_eq!(void(&file), Some(Void::Freed));
        assert_eq!(read(&file).unwrap(), state);
    }

    #[test]
    fn a_state_of_another_form_is_not_read() {
        let file = write(&Checkpoint { words_taken: 7, ..Checkpoint::default() }).unwrap();
        let other = (CHECKPOINT_FORM + 1).to_ne_bytes();
        rustix::io::pwrite(&file, &other, FORM_AT).unwrap();
        assert_eq!(read(&file).unwrap_err().to_string(), "a worker of another release wrote it");
    }

    #[test]
    fn what_is_no_state_holds_nothing() {
        let short = create_sealed("short", 24).unwrap();
        assert!(!holds(&short) && Pledge::of(&short).is_err() && read(&short).is_err());
        let empty = create_sealed("empty", 100).unwrap();
        assert!(!holds(&empty));
    }

    #[test]
    fn who_has_the_file_knows_who_was_answered() {
        let file = write(&Checkpoint::default()).unwrap();
        let (ours, theirs) = (Pledge::of(&file).unwrap(), Pledge::of(&file).unwrap());
        assert_eq!(theirs.answers().given(3, 10), Some(false));
        ours.answer(3, (10, 12), || {
            assert_eq!(theirs.answers().given(3, 10), None);
            Sleeper::NONE
        });
        let answers = theirs.answers();
        assert_eq!([7, 10, 11].map(|end| answers.given(3, end)), [Some(true), Some(true), Some(false)]);
        assert_eq!([7, 10, 11].map(|end| answers.taken(3, end)), [None, Some(12), None]);
        assert_eq!(answers.given(4, 7), Some(false));
        assert_eq!(answers.given(u16::MAX, 7), Some(false));
    }
}
