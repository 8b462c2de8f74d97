//! The directory tree of a server, and the lock that keeps a second server out.
//!
//! The server directory is the user's alone (0700). A function's directory and its sockets are open to everybody
//! (0755, 0666): what guards them on the host is the closed directory above, and in a container, whose user may be
//! any, that the directory is mounted there at all.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};
use torpor_proto::directory::{FunctionDirectory, ServerDirectory};

/// Longest path of a socket. Source: unix(7), `sun_path` has 108 bytes, the last of which ends it.
const MAX_SOCKET_PATH_BYTES: usize = 107;

const LOCK_FILE: &str = "lock";

/// How long a server that is ending may hold the lock.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);

/// Why a directory cannot be a server's.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Another server has it.
    #[error("another server already listens in {0}; use it, or end it with `torpor stop --directory {0}`")]
    Taken(PathBuf),
    /// It holds something else.
    #[error("{0} holds other things than a Torpor server; choose an empty or new directory with --directory")]
    Foreign(PathBuf),
    /// It belongs to another user.
    #[error("{0} belongs to another user; choose a directory of your own with --directory")]
    NotOwned(PathBuf),
    /// Sockets cannot have paths that long.
    #[error(
        "{0} is too long for a socket (at most {MAX_SOCKET_PATH_BYTES} bytes); choose a shorter --directory"
    )]
    TooLong(PathBuf),
    /// The file system refused.
    #[error("{path} cannot be made: {error}; choose another place with --directory")]
    Io {
        /// What was to be made.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// A locked server directory. Dropping it lets another server in.
#[derive(Debug)]
pub struct ServerTree {
    directory: ServerDirectory,
    _lock: File,
}

impl ServerTree {
    /// Makes the directory if it is not there, and takes its lock. What a server that died left behind is removed.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn take(directory: &ServerDirectory) -> Result<Self, TreeError> {
        let path = directory.path();
        let failed = |error| TreeError::Io { path: path.to_owned(), error };
        check_socket_path(&directory.admin_socket())?;
        private_directories(path).map_err(failed)?;
        let metadata = fs::metadata(path).map_err(failed)?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(TreeError::NotOwned(path.to_owned()));
        }
        if !path.join(LOCK_FILE).exists() && fs::read_dir(path).map_err(failed)?.next().is_some() {
            return Err(TreeError::Foreign(path.to_owned()));
        }
        let lock = File::create(path.join(LOCK_FILE)).map_err(failed)?;
        // One that is ending removes its sockets first, then lets go.
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOCK_PATIENCE / 20),
                Err(fs::TryLockError::WouldBlock) => return Err(TreeError::Taken(path.to_owned())),
                Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)?;
        let tree = Self { directory: directory.clone(), _lock: lock };
        tree.clear();
        private_directories(&directory.images()).map_err(failed)?;
        private_directories(&directory.functions()).map_err(failed)?;
        Ok(tree)
    }

    /// Makes a function's directory, empty.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn make_function(&self, name: &str) -> Result<FunctionDirectory, TreeError> {
        let function = self.directory.function(name);
        check_socket_path(&function.lifeline_socket())?;
        let make = || {
            private_directories(function.path())?;
            fs::set_permissions(function.path(), Permissions::from_mode(0o755))
        };
        make().map_err(|error| TreeError::Io { path: function.path().to_owned(), error })?;
        Ok(function)
    }

    /// Removes sockets and function directories. Images stay: they are a cache by content.
    fn clear(&self) {
        // What cannot be removed is found out when it is made again.
        let _ = fs::remove_file(self.directory.admin_socket());
        let _ = fs::remove_dir_all(self.directory.functions());
    }
}

impl Drop for ServerTree {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Opens a socket to everybody who can see it.
///
/// # Errors
/// What the kernel says.
pub fn open_to_all(socket: &Path) -> io::Result<()> {
    fs::set_permissions(socket, Permissions::from_mode(0o666))
}

/// Closes a socket to everybody but its owner.
///
/// # Errors
/// What the kernel says.
pub fn close_to_others(socket: &Path) -> io::Result<()> {
    fs::set_permissions(socket, Permissions::from_mode(0o600))
}

fn private_directories(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn check_socket_path(path: &Path) -> Result<(), TreeError> {
    let fits = path.as_os_str().as_bytes().len() <= MAX_SOCKET_PATH_BYTES;
    if fits { Ok(()) } else { Err(TreeError::TooLong(path.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_server_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let directory = ServerDirectory::new(parent.path().join("torpor"));
        let first = ServerTree::take(&directory).unwrap();
        assert!(matches!(ServerTree::take(&directory), Err(TreeError::Taken(_))));
        assert_eq!(fs::metadata(directory.path()).unwrap().mode() & 0o777, 0o700);
        drop(first);
        ServerTree::take(&directory).unwrap();
    }

    #[test]
    fn what_a_dead_server_left_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let directory = ServerDirectory::new(parent.path().join("torpor"));
        let dead = ServerTree::take(&directory).unwrap();
        let function = dead.make_function("f").unwrap();
        std::os::unix::net::UnixListener::bind(function.lifeline_socket()).unwrap();
        fs::write(directory.images().join("kept"), "").unwrap();
        drop(dead);
        let _next = ServerTree::take(&directory).unwrap();
        assert!(!function.path().exists());
        assert!(directory.images().join("kept").exists());
    }

    #[test]
    fn a_directory_with_other_things_in_it_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("letter"), "dear").unwrap();
        fs::set_permissions(parent.path(), Permissions::from_mode(0o755)).unwrap();
        let refused = ServerTree::take(&ServerDirectory::new(parent.path()));
        assert!(matches!(refused, Err(TreeError::Foreign(_))));
        assert_eq!(fs::metadata(parent.path()).unwrap().mode() & 0o777, 0o755);
    }

    #[test]
    fn a_path_too_long_for_sockets_is_refused_at_once() {
        let directory = ServerDirectory::new(format!("/tmp/{}", "x".repeat(120)));
        assert!(matches!(ServerTree::take(&directory), Err(TreeError::TooLong(_))));
    }
}
