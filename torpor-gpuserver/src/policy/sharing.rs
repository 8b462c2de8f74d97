//! Sharing: whether a client that waits for its turn has it beside those that are active.
//!
//! Clients that are active together run in one context, where their kernels overlap: twice as fast as one after the other, and
//! nobody waits for anybody's pause. What one of them needs must never drive the others' memory out, so the GPU's memory says
//! how many they are.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

/// How many clients are active on one GPU at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActiveLimit {
    /// Those whose memory is on the GPU together.
    Auto,
    /// So many, whatever memory they have.
    AtMost(NonZeroUsize),
}

/// What an [`ActiveLimit`] can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give a whole number from 1, or auto")]
pub struct InvalidActiveLimit;

impl FromStr for ActiveLimit {
    type Err = InvalidActiveLimit;

    fn from_str(text: &str) -> Result<Self, InvalidActiveLimit> {
        match text {
            "auto" => Ok(Self::Auto),
            number => number.parse().map(Self::AtMost).map_err(|_| InvalidActiveLimit),
        }
    }
}

impl fmt::Display for ActiveLimit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.pad("auto"),
            Self::AtMost(clients) => clients.fmt(formatter),
        }
    }
}

/// The GPU's memory, as seen by a client that wants to be active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What all clients together may have.
    pub available_bytes: u64,
    /// What others have, or are about to take, and keep: they are active, or pinned, or cannot be saved now.
    pub staying_bytes: Vec<u64>,
}

impl Memory {
    /// What is left for the client, if all leave that may.
    #[must_use]
    pub fn room_bytes(&self) -> u64 {
        self.staying_bytes.iter().copied().fold(self.available_bytes, u64::saturating_sub)
    }
}

/// Whether a client with `needed_bytes` of memory is active beside `active` others.
///
/// ```
/// use torpor_gpuserver::policy::sharing::{ActiveLimit, Memory, joins};
///
/// let memory = || Memory { available_bytes: 80, staying_bytes: vec![30, 20] };
/// assert!(joins(ActiveLimit::Auto, 2, 30, memory));
/// assert!(!joins(ActiveLimit::Auto, 2, 31, memory));
/// assert!(joins("3".parse()?, 2, 31, memory) && !joins("2".parse()?, 2, 1, memory));
///
/// // Alone, it is told by its own allocations that there is no room.
/// assert!(joins(ActiveLimit::Auto, 0, 90, memory));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn joins(limit: ActiveLimit, active: usize, needed_bytes: u64, memory: impl FnOnce() -> Memory) -> bool {
    match limit {
        _ if active == 0 => true,
        ActiveLimit::AtMost(clients) => active < clients.get(),
        ActiveLimit::Auto => {
            let memory = memory();
            // Where they have more than there is, nobody joins them, not even who needs nothing.
            let Memory { available_bytes, staying_bytes } = &memory;
            let taken_bytes = staying_bytes.iter().copied().fold(0, u64::saturating_add);
            taken_bytes <= *available_bytes && needed_bytes <= memory.room_bytes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_limit_is_what_was_written() {
        for text in ["auto", "1", "17"] {
            assert_eq!(text.parse::<ActiveLimit>().map(|limit| limit.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "0", "-1", "Auto", "1.5", "many"] {
            assert_eq!(text.parse::<ActiveLimit>(), Err(InvalidActiveLimit), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whoever_is_active_together_has_room_together(
            available_bytes in 0..1000_u64,
            clients in prop::collection::vec(0..400_u64, 1..12),
        ) {
            let mut staying_bytes: Vec<u64> = Vec::new();
            for needed in clients {
                let memory = || Memory { available_bytes, staying_bytes: staying_bytes.clone() };
                let together = staying_bytes.iter().sum::<u64>() + needed;
                let joined = joins(ActiveLimit::Auto, staying_bytes.len(), needed, memory);
                prop_assert_eq!(joined, staying_bytes.is_empty() || together <= available_bytes);
                if joined {
                    staying_bytes.push(needed);
                }
            }
        }

        #[test]
        fn what_is_more_than_there_is_has_no_room(available_bytes: u64, mut staying_bytes: Vec<u64>, needed: u64) {
            staying_bytes.push(u64::MAX - needed);
            let joined = joins(ActiveLimit::Auto, 1, needed, || Memory { available_bytes, staying_bytes });
            prop_assert!(!joined || available_bytes == u64::MAX);
        }
    }
}
