//! Words in memory that streams write and wait for (`cuStreamWriteValue32`, `cuStreamWaitValue32` and their like).
//!
//! A worker writes them in the order of the stream. For those that are waited for nobody waits on the GPU: a stream waits here, as for a
//! function of the program (`stream/host_function`), and this process looks ([`wait`]). docs/design/order.md says why.

mod wait;

use super::{Client, CudaResult, Location};
use std::sync::Arc;
use torpor_proto::command::WordWrite;
use torpor_proto::error::CudaError;
use torpor_proto::layout::AddressRange;
pub(super) use wait::Wait;
use wait::{Condition, Place};

/// `CU_STREAM_MEM_OP_*`
const WAIT_32: u32 = 1;
const WRITE_32: u32 = 2;
const FLUSH_REMOTE_WRITES: u32 = 3;
const WAIT_64: u32 = 4;
const WRITE_64: u32 = 5;
const BARRIER: u32 = 6;

/// `CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER`: there is one all the same.
const NO_MEMORY_BARRIER: u32 = 1;

/// `CU_STREAM_WAIT_VALUE_FLUSH`: what other devices write is flushed behind the wait. None does.
const FLUSH: u32 = 1 << 30;

/// `CU_STREAM_MEMORY_BARRIER_TYPE_GPU`, the greatest
const LAST_BARRIER: u32 = 1;

/// `CU_DEVICE_ATTRIBUTE_CAN_FLUSH_REMOTE_WRITES`, `…_CAN_USE_64_BIT_STREAM_MEM_OPS`
const CAN_FLUSH: i32 = 98;
const CAN_USE_64_BITS: i32 = 122;

/// How long a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 32 bits.
    Narrow,
    /// 64 bits.
    Wide,
}

impl Width {
    fn bytes(self) -> u64 {
        match self {
            Self::Narrow => 4,
            Self::Wide => 8,
        }
    }

    /// As much of a value as the word has.
    fn of(self, value: u64) -> u64 {
        match self {
            Self::Narrow => value & u64::from(u32::MAX),
            Self::Wide => value,
        }
    }
}

/// `CUstreamBatchMemOpParams`: a kind, an address, a value and flags, each in eight bytes of its own; an alias and padding follow. Kinds
/// without an address have their flags right behind the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct WordOperation([u64; 6]);

const _: () =
    assert!(size_of::<WordOperation>() == size_of::<cudarc::driver::sys::CUstreamBatchMemOpParams>());

impl WordOperation {
    /// In one batch (cuda.h).
    pub const MOST: usize = 256;

    /// `cuStreamWaitValue32`, `cuStreamWaitValue64`
    #[must_use]
    pub fn wait(width: Width, address: u64, value: u64, flags: u32) -> Self {
        let kind = if width == Width::Narrow { WAIT_32 } else { WAIT_64 };
        Self([kind.into(), address, value, flags.into(), 0, 0])
    }

    /// `cuStreamWriteValue32`, `cuStreamWriteValue64`
    #[must_use]
    pub fn write(width: Width, address: u64, value: u64, flags: u32) -> Self {
        let kind = if width == Width::Narrow { WRITE_32 } else { WRITE_64 };
        Self([kind.into(), address, value, flags.into(), 0, 0])
    }
}

/// What a stream does for some operations that follow each other.
#[derive(Debug)]
pub(super) enum WordStep {
    /// A worker's command; its stream is still to be said.
    Write(WordWrite),
    /// All of these hold, one after the other.
    Wait(Arc<[Wait]>),
}

impl Client {
    /// What a batch of operations asks for.
    ///
    /// # Errors
    /// `INVALID_VALUE` for what there is none of; `NOT_SUPPORTED` for what the device cannot do.
    pub(super) fn word_steps(&self, operations: &[WordOperation]) -> CudaResult<Vec<WordStep>> {
        let (mut steps, mut waits) = (Vec::new(), Vec::new());
        for operation in operations {
            match self.read(operation)? {
                Asked::Wait(wait) => waits.push(wait),
                Asked::Write(write) => {
                    steps.extend(waited(&mut waits));
                    steps.push(WordStep::Write(write));
                }
                Asked::Nothing => {}
            }
        }
        steps.extend(waited(&mut waits));
        Ok(steps)
    }

    /// Whether there are such operations.
    ///
    /// # Errors
    /// `INVALID_VALUE`, `NOT_SUPPORTED`.
    pub fn check_words(&self, operations: &[WordOperation]) -> CudaResult<()> {
        self.word_steps(operations).map(drop)
    }

    fn read(&self, &WordOperation([first, address, value, flags, ..]): &WordOperation) -> CudaResult<Asked> {
        // The upper halves are padding, where they are nothing else.
        let (kind, flags) = (first as u32, flags as u32);
        let flags_of_no_word = (first >> 32) as u32;
        let width = if matches!(kind, WAIT_64 | WRITE_64) { Width::Wide } else { Width::Narrow };
        match kind {
            WAIT_32 | WAIT_64 => {
                let condition = Condition::of(flags & !FLUSH)?;
                if flags & FLUSH != 0 {
                    self.require(CAN_FLUSH)?;
                }
                let place = self.place_of_word(address, width)?;
                Ok(Asked::Wait(Wait { place, width, value: width.of(value), condition }))
            }
            WRITE_32 | WRITE_64 if flags & !NO_MEMORY_BARRIER == 0 => {
                let (Place::Host(address) | Place::Device(address)) = self.place_of_word(address, width)?;
                let (value, bytes) = (width.of(value), width.bytes() as u32);
                Ok(Asked::Write(WordWrite { address, value, stream: 0, bytes }))
            }
            FLUSH_REMOTE_WRITES if flags_of_no_word == 0 => self.require(CAN_FLUSH).map(|()| Asked::Nothing),
            // A write comes behind all that its stream did before, for everybody who sees it.
            BARRIER if flags_of_no_word <= LAST_BARRIER => Ok(Asked::Nothing),
            _ => Err(CudaError::INVALID_VALUE),
        }
    }

    fn require(&self, attribute: i32) -> CudaResult<()> {
        match self.device().attribute(attribute) {
            Ok(has) if has != 0 => Ok(()),
            _ => Err(CudaError::NOT_SUPPORTED),
        }
    }

    /// Where a word lies: in the device's memory, or in page-locked memory.
    fn place_of_word(&self, address: u64, width: Width) -> CudaResult<Place> {
        if width == Width::Wide {
            self.require(CAN_USE_64_BITS)?;
        }
        if !address.is_multiple_of(width.bytes()) {
            return Err(CudaError::INVALID_VALUE);
        }
        let place = match self.locate(address, width.bytes()) {
            Location::Device(address) => Place::Device(address),
            Location::Pinned(address) => Place::Host(address),
            Location::Pageable(_) => return Err(CudaError::INVALID_VALUE),
        };
        if self.has_word(place, width) { Ok(place) } else { Err(CudaError::INVALID_VALUE) }
    }

    fn has_word(&self, place: Place, width: Width) -> bool {
        let is_whole = |found: AddressRange, address| found.contains(address, width.bytes());
        match place {
            Place::Device(address) => self.allocation_of(address).is_ok_and(|found| is_whole(found, address)),
            Place::Host(address) => {
                let found = self.locked_range_of(address).or_else(|| self.managed_range_of(address));
                found.is_some_and(|found| is_whole(found, address))
            }
        }
    }
}

enum Asked {
    Write(WordWrite),
    Wait(Wait),
    Nothing,
}

fn waited(waits: &mut Vec<Wait>) -> Option<WordStep> {
    let waits = std::mem::take(waits);
    (!waits.is_empty()).then(|| WordStep::Wait(waits.into()))
}
