//! A group of users to whom a server is open as it is to its owner.

use rustix::fs::Gid;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::str::FromStr;

/// Where the system's groups are.
const GROUPS: &str = "/etc/group";

/// A group of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group(Gid);

/// Why there is no group.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// Nobody knows it.
    #[error("there is no group {0} in {GROUPS}; name one of those, or give a group's number")]
    Unknown(String),
    /// It cannot be looked up.
    #[error("{GROUPS} cannot be read: {0}; give the group's number")]
    Unreadable(io::Error),
}

impl FromStr for Group {
    type Err = GroupError;

    fn from_str(text: &str) -> Result<Self, GroupError> {
        // -1 is no group, for chown(2) leaves the group as it is then.
        if let Some(number) = text.parse().ok().filter(|&number| number != u32::MAX) {
            return Ok(Self(Gid::from_raw(number)));
        }
        let groups = fs::read_to_string(GROUPS).map_err(GroupError::Unreadable)?;
        let found = number_of(text, &groups).ok_or_else(|| GroupError::Unknown(text.to_owned()))?;
        Ok(Self(Gid::from_raw(found)))
    }
}

/// Source: group(5), lines of `name:password:number:members`.
fn number_of(name: &str, groups: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// Lets a group, or without one nobody but the owner, enter and list a directory.
///
/// # Errors
/// What the kernel says: an owner who is not root can name groups that it is in.
pub fn guard_directory(path: &Path, group: Option<Group>) -> io::Result<()> {
    give(path, group, 0o700, 0o750)
}

/// Lets those connect to a socket of a server's directory who may enter that.
///
/// # Errors
/// As [`guard_directory`].
pub fn guard_socket(path: &Path) -> io::Result<()> {
    give(path, path.parent().and_then(group_of), 0o600, 0o660)
}

/// The group to which a directory is open.
fn group_of(directory: &Path) -> Option<Group> {
    let metadata = fs::metadata(directory).ok()?;
    (metadata.mode() & 0o050 == 0o050).then(|| Group(Gid::from_raw(metadata.gid())))
}

fn give(path: &Path, group: Option<Group>, alone: u32, together: u32) -> io::Result<()> {
    let Some(Group(group)) = group else { return fs::set_permissions(path, Permissions::from_mode(alone)) };
    // Nobody else's group has the rights in between.
    fs::set_permissions(path, Permissions::from_mode(alone))?;
    chown(path, None, Some(group.as_raw()))?;
    fs::set_permissions(path, Permissions::from_mode(together))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_a_name_of_the_system_s_or_a_number() {
        let groups = "root:x:0:\ngpu:x:1234:alice,bob\nodd\n";
        assert_eq!(
            ["gpu", "root", "gp", "odd", ""].map(|name| number_of(name, groups)),
            [Some(1234), Some(0), None, None, None]
        );
        assert_eq!("1234".parse::<Group>().unwrap(), Group(Gid::from_raw(1234)));
        let error = "no-such-group".parse::<Group>().unwrap_err().to_string();
        assert!(error.contains("no-such-group") && error.contains("number"), "{error}");
        assert!("4294967295".parse::<Group>().is_err());
    }

    #[test]
    fn what_is_open_to_a_group_is_closed_again_without_one() {
        let directory = tempfile::tempdir().unwrap();
        let own = Group(rustix::process::getegid());
        let socket = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        guard_directory(directory.path(), Some(own)).unwrap();
        guard_socket(&socket).unwrap();
        assert_eq!((mode(directory.path()), mode(&socket)), (0o750, 0o660));
        assert_eq!(group_of(directory.path()), Some(own));
        guard_directory(directory.path(), None).unwrap();
        guard_socket(&socket).unwrap();
        assert_eq!((mode(directory.path()), mode(&socket)), (0o700, 0o600));
    }
}
