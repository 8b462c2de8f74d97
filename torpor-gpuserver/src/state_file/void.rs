//! Why a state holds no longer: what a session says by the word that makes it void, and what people read who have lost a function.

/// What a client is about to do that its state does not lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Void {
    /// Its memory leaves the GPU: there may be room for one generation alone.
    Leaving = 1,
    /// The host store has no room for two generations.
    NoRoom,
    /// What was to be saved could not be copied.
    Unsaved,
    /// It gives memory up that the state knows.
    Freed,
    /// Arrays of it become others.
    Arrays,
    /// It is told of an error.
    Error,
    /// Its kernels come to reach memory that its program writes.
    Managed,
    /// Others have what it has.
    Shares,
    /// Its writes are dropped from now on.
    Settled,
    /// It was not to be kept any longer.
    Unwanted,
    /// Its program reads addresses of code, which are this worker's.
    Code,
}

impl Void {
    const ALL: [Self; 11] = [
        Self::Leaving,
        Self::NoRoom,
        Self::Unsaved,
        Self::Freed,
        Self::Arrays,
        Self::Error,
        Self::Managed,
        Self::Shares,
        Self::Settled,
        Self::Unwanted,
        Self::Code,
    ];

    /// What a word says; `None` if it is none of these.
    pub(super) fn of(word: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|&void| void as u64 == word)
    }

    /// For people, who have read that a client is lost.
    pub(crate) fn because(self) -> &'static str {
        match self {
            Self::Leaving => "its memory was leaving the GPU, with changes that were not saved before",
            Self::NoRoom => {
                "its memory was being saved, and the host store had no room for what it had before as well"
            }
            Self::Unsaved => "its memory could not be saved",
            Self::Freed => "it had freed memory since it was saved",
            Self::Arrays => "it had made, changed or destroyed arrays since it was saved",
            Self::Error => "it had been told of an error since it was saved",
            Self::Managed => {
                "its kernels had come to reach memory that its program writes, since it was saved"
            }
            Self::Shares => "it shares memory or events with another process",
            Self::Settled => "its first request was just over, after which its writes are dropped",
            Self::Unwanted => "the server does not save clients ahead of time ([scheduler] cover)",
            Self::Code => "its program had copied addresses of code, which are others at the next worker",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_says_one_thing() {
        for void in Void::ALL {
            assert_eq!(Void::of(void as u64), Some(void));
        }
        assert_eq!((Void::of(0), Void::of(u64::MAX)), (None, None));
    }
}
