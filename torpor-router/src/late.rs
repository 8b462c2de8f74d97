//! Turns of those that are late: they let others pass, but not for ever.
//!
//! A request that is late cannot be helped, and its place makes one late that could still be in time. Where more comes than can be done,
//! nobody would be in time any more if those that are late for longest were always first.

/// Of so many that leave one is late, while there is one.
const EACH: u32 = 8;

/// Whose turn it is.
#[derive(Debug, Default)]
pub struct Turns {
    /// Those that have left since a late one did.
    others: u32,
}

impl Turns {
    /// Whether the next one is to be late, if there is one that is.
    #[must_use]
    pub fn is_of_late(&self) -> bool {
        self.others >= EACH - 1
    }

    /// One leaves.
    pub fn note(&mut self, is_late: bool) {
        self.others = if is_late { 0 } else { self.others.saturating_add(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_eight_is_late() {
        let mut turns = Turns::default();
        let late = (0..80).filter(|_| {
            let is_late = turns.is_of_late();
            turns.note(is_late);
            is_late
        });
        assert_eq!(late.count(), 10);
    }
}
