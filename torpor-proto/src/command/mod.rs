//! The commands: all that a client can ask of a GPU, each declared once.
//!
//! A declaration is plain data with its number, its kind and its answer. It yields the [`Command`] implementation the
//! client encodes by, a method in the family's trait that a worker implements, and the arm of [`dispatch`] that
//! brings the two together.
//!
//! *Posted* commands get no answer; their errors are kept and returned later, as CUDA does. *Awaited* commands are
//! answered in a completion slot. Identifiers (streams, events, images, kernels, graphs) are chosen by the client;
//! stream 0 is the first device's legacy default stream and exists from the start. Addresses lie in the client's arena or in
//! its host range; nothing else is accepted.

mod declare;
mod devices;
mod list;
mod part;
mod plain;

pub use devices::*;
pub use list::*;
pub use part::*;
pub use plain::*;

use crate::error::CudaError;
use crate::ring::{Malformed, NO_SLOT, Record};
use bytemuck::Pod;

/// Whether a command is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No answer is awaited.
    Posted,
    /// The answer comes in a completion slot.
    Awaited,
}

/// One kind of command: plain data, a whole number of 64-bit words.
pub trait Command: Pod {
    /// Its number in a record's header.
    const OPCODE: u16;
    /// Whether it is answered.
    const KIND: Kind;
    /// Its name, for logs.
    const NAME: &'static str;
    /// The fixed part of its answer (`()` for posted commands).
    type Reply: Pod;

    /// The words that travel.
    fn words(&self) -> &[u64] {
        words(self)
    }
}

/// Plain data as words. What is empty is aligned to nothing, so it cannot be cast.
fn words<T: Pod>(data: &T) -> &[u64] {
    if size_of::<T>() == 0 { &[] } else { bytemuck::cast_slice(std::slice::from_ref(data)) }
}

/// Identifies the command that an answer is for: its completion slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub u16);

/// How an awaited command went, if it did not fail.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<R> {
    /// Answer now, with a fixed and a variable part.
    Done(R, Vec<u8>),
    /// The worker keeps the [`Ticket`] and answers when the GPU is there.
    Pending,
}

impl<R> Outcome<R> {
    /// An answer without a variable part.
    pub fn done(reply: R) -> Self {
        Self::Done(reply, Vec::new())
    }
}

/// What became of a record.
#[derive(Debug)]
pub enum Dispatched {
    /// A posted command ran, or failed.
    Posted(&'static str, Result<(), CudaError>),
    /// An awaited command is to be answered now with these words and bytes.
    Answer(&'static str, Ticket, Result<(Vec<u64>, Vec<u8>), CudaError>),
    /// An awaited command will be answered later.
    Pending(&'static str, Ticket),
}

/// A reply may be aligned to less than a word.
fn answer_words<R: Pod>(reply: &R) -> Vec<u64> {
    let mut words = vec![0; size_of::<R>().div_ceil(8)];
    bytemuck::cast_slice_mut(&mut words)[..size_of::<R>()].copy_from_slice(bytemuck::bytes_of(reply));
    words
}

/// A record as the command that it is: its fixed and its variable part.
///
/// # Errors
/// [`Malformed`] if it is not as long as that, or has a slot where it should have none.
pub fn decode<C: Command>(record: &Record) -> Result<(C, &[u8]), Malformed> {
    let header = record.header();
    let has_slot = usize::from(header.slot) < crate::completion::SLOTS;
    let slot_fits = match C::KIND {
        Kind::Posted => header.slot == NO_SLOT,
        Kind::Awaited => has_slot,
    };
    if !slot_fits {
        return Err(Malformed::Slot { opcode: header.opcode, slot: header.slot });
    }
    let (body, tail) = record.parts(size_of::<C>() / 8)?;
    Ok((bytemuck::pod_read_unaligned(bytemuck::cast_slice(body)), tail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_and_names_are_unique() {
        let numbers: BTreeSet<_> = ALL.iter().map(|command| command.0).collect();
        let names: BTreeSet<_> = ALL.iter().map(|command| command.1).collect();
        assert_eq!((numbers.len(), names.len()), (ALL.len(), ALL.len()));
        assert!(!numbers.contains(&0), "zeroed memory must be no command");
    }

    #[test]
    fn commands_without_words_and_of_half_words_travel() {
        assert!(Ping {}.words().is_empty());
        let stack =
            [(0_u8, StreamQuery { stream: 7, reserved: 9 }), (1, StreamQuery { stream: 8, reserved: 0 })];
        assert_eq!(stack.map(|(_, query)| query.words().to_vec()), [vec![9 << 32 | 7], vec![8]]);
        assert!(answer_words(&()).is_empty());
        assert_eq!(answer_words(&EventElapsedReply { milliseconds_bits: 5, reserved: 6 }), [6 << 32 | 5]);
    }

    #[test]
    fn empty_commands_and_answers_have_no_words() {
        assert_eq!(Ping {}.words(), [0; 0]);
        assert_eq!(words(&()), [0; 0]);
        assert_eq!(MemoryFree { address: 7 }.words(), [7]);
    }

    #[test]
    fn a_launch_attribute_is_laid_out_as_in_cuda_h() {
        use cudarc::driver::sys::CUlaunchAttribute;
        assert_eq!(size_of::<LaunchAttribute>(), size_of::<CUlaunchAttribute>());
        assert_eq!(
            std::mem::offset_of!(LaunchAttribute, value),
            std::mem::offset_of!(CUlaunchAttribute, value)
        );
    }
}
