//! Making the driver give the handle that is wanted. It gives small numbers and those again that were given back, in an order of
//! its own, so whoever keeps all that come before the wanted one comes to that.

use crate::worker::gpu::handles::Kind;
use std::collections::{HashMap, HashSet};
use torpor_proto::error::CudaError;

/// Objects that are nobody's, at most.
const MOST_SPARES: usize = 9216;

/// How often an object is made for one handle. The second time the driver has none left that it gives before.
const TRIES: usize = 8;

/// Of these each client has some that no other one has whose number is not the same modulo that.
const ZONES: u64 = 128;
const ZONE: u64 = 32;

/// Behind those, for clients with more objects, there are fewer and larger ones.
const LARGE_ZONES: u64 = 16;
const LARGE_ZONE: u64 = 256;

/// What the driver has given a handle.
pub(super) trait Numbered {
    /// The handle.
    fn number(&self) -> u64;
}

/// Which handles are whose.
#[derive(Debug)]
pub(super) struct List<O> {
    /// Objects that are nobody's, and keep their handles for whoever wants these.
    spares: HashMap<(Kind, u64), O>,
    /// Clients'.
    owned: HashSet<u64>,
}

impl<O: Numbered> List<O> {
    pub(super) fn new() -> Self {
        Self { spares: HashMap::new(), owned: HashSet::new() }
    }

    /// A handle that no client has, of those that are a client's before they are another one's.
    pub(super) fn choose(&self, client: u64) -> Option<u64> {
        let (small, large) = (client % ZONES * ZONE, ZONES * ZONE + client % LARGE_ZONES * LARGE_ZONE);
        let mut own = (small..small + ZONE).chain(large..large + LARGE_ZONE).map(|before| before + 1);
        own.find(|number| !self.owned.contains(number))
    }

    /// A handle is a client's from now on. False if it is one already.
    pub(super) fn own(&mut self, number: u64) -> bool {
        self.owned.insert(number)
    }

    /// A handle is no client's any more.
    pub(super) fn disown(&mut self, number: u64) {
        self.owned.remove(&number);
    }

    /// Keeps an object for its handle.
    pub(super) fn keep(&mut self, kind: Kind, object: O) {
        self.spares.insert((kind, object.number()), object);
    }

    /// An object that is nobody's, with this handle. `None` if the driver does not give it.
    ///
    /// # Errors
    /// The driver's.
    pub(super) fn blank(
        &mut self,
        (kind, number): (Kind, u64),
        spare: impl Fn(Kind) -> Result<O, CudaError>,
    ) -> Result<Option<O>, CudaError> {
        // Both kinds may have one list.
        self.spares.remove(&(kind.other(), number));
        loop {
            if let Some(found) = self.spares.remove(&(kind, number)) {
                return Ok(Some(found));
            }
            if self.spares.len() >= MOST_SPARES {
                return Ok(None);
            }
            self.keep(kind, spare(kind)?);
        }
    }

    /// An object that `make` makes, with this handle. `None` if the driver does not give it.
    ///
    /// # Errors
    /// The driver's.
    pub(super) fn make(
        &mut self,
        (kind, number): (Kind, u64),
        spare: impl Fn(Kind) -> Result<O, CudaError>,
        make: impl Fn() -> Result<O, CudaError>,
    ) -> Result<Option<O>, CudaError> {
        for _ in 0..TRIES {
            let Some(blank) = self.blank((kind, number), &spare)? else { return Ok(None) };
            drop(blank);
            let made = make()?;
            if made.number() == number {
                return Ok(Some(made));
            }
            // There is another one that the driver gives first: a spare gets it now.
            drop(made);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
