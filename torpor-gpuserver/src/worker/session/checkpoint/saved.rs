//! What a client keeps, kind by kind, in one shape: saved as a part of a
//! [`Checkpoint`](torpor_proto::control::migration::Checkpoint), and made of it again in another session.
//!
//! A new kind is a field of that message, an implementation of [`Saved`], and a line where a checkpoint is taken and one where
//! it is resumed (`mod.rs`).

use crate::worker::session::Session;
use crate::worker::session::halt::Halt;

/// One kind of what a client keeps.
pub(super) trait Saved {
    /// What people call it.
    const NAME: &'static str;
    /// It as data.
    type State;

    /// What the session has of it, which stays as it is. The client's work is done, and its memory is saved.
    ///
    /// # Errors
    /// [`Halt::Lost`], or [`Halt::Interrupted`].
    fn save(session: &mut Session) -> Result<Self::State, Halt>;

    /// Makes it in a session that has nothing of it, but all kinds that are resumed before.
    ///
    /// # Errors
    /// Why it cannot be made here.
    fn restore(session: &mut Session, state: Self::State) -> Result<(), Halt>;
}
