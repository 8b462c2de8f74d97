//! The one descriptor that every process inherits without help: a socket to whoever started this one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Standard input as a descriptor of our own, and nothing in its place for libraries that would read from it.
///
/// # Errors
/// The kernel's.
pub fn take() -> io::Result<OwnedFd> {
    let taken = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(taken)
}
