//! Waiting for a word, by looking at it again and again.
//!
//! Page-locked memory is memory of this process too. A word of the device's is copied to where this process sees it: a command as any
//! other, so whoever waits has its turn on the GPU for a moment now and then, and keeps nobody from having theirs meanwhile.

use super::Width;
use crate::core::stream::Stream;
use crate::core::{Client, CudaResult, client};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use torpor_proto::command::{Copy, StreamSynchronize};
use torpor_proto::error::CudaError;
use torpor_proto::layout::PAGE_BYTES;

/// `CU_STREAM_NON_BLOCKING`
const NON_BLOCKING: u32 = 1;

/// For so long a word is looked at without a pause.
const AT_ONCE: Duration = Duration::from_micros(50);

/// Between two looks at most.
const LONGEST: Duration = Duration::from_millis(1);

/// A look that takes longer had to come to the GPU, for which others may have had to leave.
const SLOW: Duration = Duration::from_millis(2);

/// Between two such looks at most.
const LONGEST_OF_SLOW: Duration = Duration::from_secs(10);

/// When a wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// The word is at or beyond the value, as a signed difference.
    AtLeast,
    /// They are equal.
    Equal,
    /// They share a bit.
    AnyBit,
    /// Some bit is in neither.
    MissingBit,
}

impl Condition {
    /// `CUstreamWaitValue_flags`, but for those that say something else.
    pub(super) fn of(flags: u32) -> CudaResult<Self> {
        Ok(match flags {
            0 => Self::AtLeast,
            1 => Self::Equal,
            2 => Self::AnyBit,
            3 => Self::MissingBit,
            _ => return Err(CudaError::INVALID_VALUE),
        })
    }

    fn holds(self, width: Width, found: u64, value: u64) -> bool {
        match (self, width) {
            (Self::AtLeast, Width::Narrow) => (found as u32).wrapping_sub(value as u32).cast_signed() >= 0,
            (Self::AtLeast, Width::Wide) => found.wrapping_sub(value).cast_signed() >= 0,
            (Self::Equal, _) => found == value,
            (Self::AnyBit, _) => found & value != 0,
            (Self::MissingBit, _) => width.of(!(found | value)) != 0,
        }
    }
}

/// Where a word lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In page-locked memory of this process.
    Host(u64),
    /// On the device.
    Device(u64),
}

/// A word that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) struct Wait {
    pub(super) place: Place,
    pub(super) width: Width,
    pub(super) value: u64,
    pub(super) condition: Condition,
}

impl Wait {
    /// Returns when the condition holds, or never will: the word is gone, or the connection.
    pub(in crate::core) fn pass(&self) {
        let began = Instant::now();
        let Ok(client) = client() else { return };
        loop {
            let (look, posted) = (Instant::now(), Glass::others_posted(client));
            match self.look(client) {
                Ok(true) | Err(_) => return,
                Ok(false) => {}
            }
            let next = Instant::now() + pause(began.elapsed(), look.elapsed());
            thread::yield_now();
            // What is posted meanwhile may write the word.
            while let Some(left) = next.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
                && Glass::others_posted(client) <= posted
            {
                thread::sleep(left.min(LONGEST));
            }
        }
    }

    fn look(&self, client: &'static Client) -> CudaResult<bool> {
        client.check_usable()?;
        if !client.has_word(self.place, self.width) {
            return Err(CudaError::INVALID_VALUE);
        }
        let found = match self.place {
            Place::Host(address) => load(address, self.width),
            Place::Device(address) => Glass::read(client, address, self.width)?,
        };
        Ok(self.condition.holds(self.width, found, self.value))
    }
}

/// How long to sleep before the next look, having waited for so long, where the last one took so long. Who has waited for long may
/// hear of it later; who had to come to the GPU for a look has no work there that could write the word, and looks seldom.
fn pause(waited: Duration, took: Duration) -> Duration {
    if waited < AT_ONCE {
        return Duration::ZERO;
    }
    let dear = if took > SLOW { (took * 8).min(LONGEST_OF_SLOW) } else { Duration::ZERO };
    (waited / 16).min(LONGEST).max(dear)
}

fn load(address: u64, width: Width) -> u64 {
    let address = address as usize;
    match width {
        Width::Narrow => {
            // SAFETY: the word is aligned and lies in the host range, which is mapped for as long as the process lives and made of plain
            // bytes that others write too.
            let word = unsafe { &*std::ptr::with_exposed_provenance::<AtomicU32>(address) };
            word.load(Ordering::Acquire).into()
        }
        Width::Wide => {
            // SAFETY: as above.
            let word = unsafe { &*std::ptr::with_exposed_provenance::<AtomicU64>(address) };
            word.load(Ordering::Acquire)
        }
    }
}

/// Through which words of the device are seen, by one thread after the other: a stream of its own, and where it copies them to.
struct Glass {
    stream: &'static Stream,
    copied_to: u64,
}

static GLASS: Mutex<Option<Glass>> = Mutex::new(None);

/// Commands that looks have posted.
static LOOKED: AtomicU64 = AtomicU64::new(0);

impl Glass {
    fn new(client: &'static Client) -> CudaResult<Self> {
        let stream = Stream::create_in(0, NON_BLOCKING, 0)?;
        Ok(Self { stream, copied_to: client.lock_host(PAGE_BYTES)?.address })
    }

    /// How many commands this process has posted beside looks.
    fn others_posted(client: &Client) -> u64 {
        let looked = LOOKED.load(Ordering::Relaxed);
        client.posted.load(Ordering::Relaxed).saturating_sub(looked)
    }

    fn read(client: &'static Client, address: u64, width: Width) -> CudaResult<u64> {
        let mut kept = GLASS.lock().unwrap_or_else(PoisonError::into_inner);
        let Self { stream, copied_to } = match &*kept {
            Some(glass) => glass,
            None => kept.insert(Self::new(client)?),
        };
        let (bytes, number) = (width.bytes(), stream.number);
        let copy = Copy { destination: *copied_to, source: address, bytes, stream: number, reserved: 0 };
        LOOKED.fetch_add(2, Ordering::Relaxed);
        client.post(&copy, &[])?;
        client.call(&StreamSynchronize { stream: number, reserved: 0 }, &[])?;
        Ok(load(*copied_to, width))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Condition::{AnyBit, AtLeast, Equal, MissingBit};
    use Width::{Narrow, Wide};

    #[test]
    fn conditions_are_those_of_the_header() {
        for (condition, width, found, value, holds) in [
            (AtLeast, Narrow, 5, 5, true),
            (AtLeast, Narrow, 4, 5, false),
            // Counters wrap.
            (AtLeast, Narrow, 1, u64::from(u32::MAX), true),
            (AtLeast, Narrow, u64::from(u32::MAX), 1, false),
            (AtLeast, Wide, 1, u64::from(u32::MAX), false),
            (AtLeast, Wide, 1, u64::MAX, true),
            (AtLeast, Wide, u64::MAX, 1, false),
            (Equal, Narrow, 5, 5, true),
            (Equal, Wide, 1 << 32 | 5, 5, false),
            (AnyBit, Narrow, 2, 6, true),
            (AnyBit, Narrow, 1, 6, false),
            (AnyBit, Narrow, u64::MAX, 0, false),
            (MissingBit, Narrow, 2, 1, true),
            (MissingBit, Narrow, 0xffff_0000, 0xffff, false),
            (MissingBit, Wide, 0xffff_0000, 0xffff, true),
            (MissingBit, Wide, u64::MAX, 0, false),
        ] {
            assert_eq!(
                condition.holds(width, found, value),
                holds,
                "{condition:?} {width:?} {found} {value}"
            );
        }
        assert!(Condition::of(4).is_err());
    }

    #[test]
    fn who_waits_for_long_looks_seldom_and_who_disturbs_others_more_seldom() {
        let us = Duration::from_micros;
        assert_eq!(pause(us(10), us(3)), Duration::ZERO);
        assert_eq!(pause(us(1600), us(3)), us(100));
        assert_eq!(pause(Duration::from_secs(9), us(30)), LONGEST);
        assert_eq!(pause(us(50_000), us(50_000)), us(400_000));
        assert_eq!(pause(us(2_000_000), us(2_000_000)), LONGEST_OF_SLOW);
    }
}
