//! Making the driver give the handle that is wanted.
//!
//! It gives small numbers, 64 of which share a word: the lowest that is free in the word of the last one, or in the next word that has one,
//! and begins anew behind the last of 131,072 (H100, driver 580: docs/design/arrays.md). A number that was given back is not free
//! before the kernels have ended that ran then. So whoever holds all that come before the wanted one comes to that.

use std::collections::HashSet;
use std::thread::sleep;
use std::time::Duration;
use torpor_proto::error::CudaError;

/// Objects that are made for one handle, at most: as many as all words have, and some that were not free at first.
const MOST_MADE: usize = 0x2_4000;

/// How many numbers share a word.
const WORD: u64 = 64;

/// The first word has those that are chosen: the driver stays there while it has some left, and there some are left for those that are not
/// free yet.
const CHOSEN: u64 = 48;

/// Of these each client has some that no other one has whose number is not the same modulo `CHOSEN / ZONE`.
const ZONE: u64 = 4;

/// The first of the times for which a handle is waited for that is not free yet; each is twice as long as the one before.
const FIRST_WAIT: Duration = Duration::from_micros(100);
const WAITS: u32 = 12;

/// What the driver has given a handle.
pub(super) trait Numbered {
    /// The handle.
    fn number(&self) -> u64;
}

/// Which handles are clients', whether their objects are there or away.
#[derive(Debug, Default)]
pub(super) struct List {
    owned: HashSet<u64>,
}

impl List {
    /// A handle is a client's from now on. False if it is one already.
    pub(super) fn own(&mut self, number: u64) -> bool {
        self.owned.insert(number)
    }

    /// A handle is no client's any more.
    pub(super) fn disown(&mut self, number: u64) {
        self.owned.remove(&number);
    }

    /// The least handle that a client's next object should have: one that is a client's before it is another one's, lest two that come from
    /// different GPUs have the same.
    fn least(&self, client: u64) -> u64 {
        let first = client % (CHOSEN / ZONE) * ZONE;
        let mut own = (first..first + ZONE).map(|before| before + 1);
        own.find(|number| !self.owned.contains(number)).unwrap_or(1)
    }

    /// An object that `make` makes for a client, with a handle that is nobody else's, and which is the client's from now on.
    ///
    /// # Errors
    /// The driver's; out of memory if all handles are clients'.
    pub(super) fn make<O: Numbered>(
        &mut self,
        client: u64,
        make: impl Fn() -> Result<O, CudaError>,
    ) -> Result<O, CudaError> {
        let least = self.least(client);
        let mut held = Vec::new();
        while held.len() < MOST_MADE {
            let made = make()?;
            if made.number() >= least && self.own(made.number()) {
                return Ok(made);
            }
            held.push(made);
        }
        Err(CudaError::OUT_OF_MEMORY)
    }
}

/// An object that `make` makes, with this handle. `None` if the driver does not give it within some `most` tries.
///
/// # Errors
/// The driver's, but for there being no more handles.
pub(super) fn find<O: Numbered>(
    number: u64,
    most: usize,
    make: impl Fn() -> Result<O, CudaError>,
) -> Result<Option<O>, CudaError> {
    let (mut held, mut waits) = (Vec::new(), 0);
    while held.len() < most {
        let made = match make() {
            Ok(made) => made,
            // All but those that are not free yet are held.
            Err(CudaError::OUT_OF_MEMORY) => return Ok(None),
            Err(error) => return Err(error),
        };
        if made.number() == number {
            return Ok(Some(made));
        }
        let is_passed = made.number() > number && word(made.number()) == word(number);
        if is_passed && waits < WAITS {
            sleep(FIRST_WAIT * (1 << waits));
            waits += 1;
        }
        held.push(made);
    }
    Ok(None)
}

/// Makes as many as all of the driver's, if it has to.
pub(super) const ALL: usize = MOST_MADE;

/// Makes so few that the driver stays in the first word.
pub(super) const A_LOOK: usize = 32;

fn word(number: u64) -> u64 {
    number.saturating_sub(1) / WORD
}

#[cfg(test)]
mod tests;
