//! Descriptors of this library in a process that may close any number and open something else under it.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// What tells an open file from every other: its number, and what is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DescriptorIdentity {
    number: RawFd,
    device: u64,
    inode: u64,
}

impl DescriptorIdentity {
    /// That of a descriptor that is this library's now.
    pub(super) fn of(descriptor: &OwnedFd) -> Option<Self> {
        Self::behind(descriptor.as_raw_fd())
    }

    /// The number, if what is behind it is still the same. May be asked in the child of a fork.
    pub(super) fn number(self) -> Option<RawFd> {
        (Self::behind(self.number) == Some(self)).then_some(self.number)
    }

    fn behind(number: RawFd) -> Option<Self> {
        let mut found = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: fstat(2) writes a whole `stat` if it succeeds; any number may be asked about.
        let found = unsafe { (libc::fstat(number, found.as_mut_ptr()) == 0).then(|| found.assume_init()) }?;
        Some(Self { number, device: found.st_dev, inode: found.st_ino })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_number_that_the_program_has_used_again_is_not_ours() {
        let (ours, _other_end) = UnixStream::pair().unwrap();
        let (programs, _other_end) = UnixStream::pair().unwrap();
        let ours = OwnedFd::from(ours);
        let identity = DescriptorIdentity::of(&ours).unwrap();
        assert_eq!(identity.number(), Some(ours.as_raw_fd()));
        let number = ours.into_raw_fd();
        // SAFETY: nothing of this test's owns the number any more; dup2 closes and reuses it at once.
        assert_eq!(unsafe { libc::dup2(programs.as_raw_fd(), number) }, number);
        assert_eq!(identity.number(), None);
        // SAFETY: the number is this test's own.
        unsafe { libc::close(number) };
        assert_eq!(identity.number(), None);
    }
}
