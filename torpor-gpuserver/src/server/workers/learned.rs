//! What the server has learned of functions by their accidents, for as long as it runs.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// What is known of functions that no setting says.
#[derive(Debug, Default)]
pub struct Learned {
    whole: Mutex<BTreeSet<String>>,
}

impl Learned {
    /// A context was lost to an access of nothing while a kernel of this function ran before all of its memory had been
    /// brought back.
    pub fn ran_ahead(&self, function: &str) {
        let is_new = self.whole.lock().unwrap_or_else(PoisonError::into_inner).insert(function.to_owned());
        if is_new {
            tracing::warn!(
                function,
                "a kernel of this function may have used memory that had not been brought back yet, through a pointer that \
                 Torpor did not see; from now on all its memory is brought before anything of it runs, until this server \
                 ends. If it fails again, the mistake is its own"
            );
        }
    }

    /// Whether nothing of the function may run while its memory is on its way.
    #[must_use]
    pub fn is_whole(&self, function: &str) -> bool {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).contains(function)
    }
}
