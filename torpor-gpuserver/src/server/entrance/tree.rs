//! The directory tree of a server, and the lock that keeps a second server out.
//!
//! The server directory is the user's alone (0700), or its group's as well ([`group`](super::group), 0750). A function's directory and its sockets are open to everybody
//! (0755, 0666): what guards them on the host is the closed directory above, and in a container, whose user may be
//! any, that the directory is mounted there at all.
//!
//! A function's directory stays when the server ends, for a container has it mounted: the next server opens its sockets in
//! the same directory. Whoever may write there (a container that has it mounted writable) may put anything in the place of
//! a socket, which is why nothing there is followed or trusted.

use crate::server::entrance::group::{Group, guard_directory};
use rustix::fs::{FileType, Mode, OFlags};
use std::fs::{self, File, Permissions};
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};
use torpor_proto::control::keeper;
use torpor_proto::directory::{FunctionDirectory, ServerDirectory, check_function_name};

/// Longest path of a socket. Source: unix(7), `sun_path` has 108 bytes, the last of which ends it.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// How long a server that is ending may hold the lock.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);

/// Why a directory cannot be a server's.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Another server has it.
    #[error(
        "another server already listens in {path} (process {pid}); use it, or end it with `torpor stop --directory {path}`"
    )]
    Taken {
        /// Which directory.
        path: PathBuf,
        /// The other server's process, as it knows itself.
        pid: String,
    },
    /// It holds something else.
    #[error("{0} holds other things than a Torpor server; choose an empty or new directory with --directory")]
    Foreign(PathBuf),
    /// It belongs to another user.
    #[error("{0} belongs to another user; choose a directory of your own with --directory")]
    NotOwned(PathBuf),
    /// The group cannot have it.
    #[error(
        "the directory cannot be given to the group: {0}; who is not root can name a group that it is in"
    )]
    Group(io::Error),
    /// Sockets cannot have paths that long.
    #[error(
        "{0} is too long for a socket (at most {MAX_SOCKET_PATH_BYTES} bytes); choose a shorter --directory"
    )]
    TooLong(PathBuf),
    /// It cannot be removed.
    #[error("{path} cannot be removed: {error}; remove it by hand")]
    Stays {
        /// What was to be removed.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
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
    lock: File,
}

/// What identifies a file as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// That of what is at a path, links not followed; `None` if nothing is.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = fs::symlink_metadata(path).ok()?;
        Some(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

impl From<FileIdentity> for keeper::Place {
    fn from(FileIdentity { device, inode }: FileIdentity) -> Self {
        Self { device, inode }
    }
}

impl ServerTree {
    /// Makes the directory if it is not there, for its user or a group as well, and takes its lock. What a server that died left behind
    /// is removed.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn take(directory: &ServerDirectory, group: Option<Group>) -> Result<Self, TreeError> {
        let path = directory.path();
        let failed = |error| TreeError::Io { path: path.to_owned(), error };
        check_socket_path(&directory.admin_socket())?;
        if let (Some(_), Some(parent)) = (group, path.parent()) {
            // Who cannot come through the parents cannot come here.
            fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(failed)?;
        }
        private_directories(path).map_err(failed)?;
        let metadata = fs::metadata(path).map_err(failed)?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(TreeError::NotOwned(path.to_owned()));
        }
        let lock_file = directory.lock_file();
        if !lock_file.exists() && fs::read_dir(path).map_err(failed)?.next().is_some() {
            return Err(TreeError::Foreign(path.to_owned()));
        }
        // Not emptied before it is ours.
        let mut lock =
            File::options().create(true).write(true).truncate(false).open(lock_file).map_err(failed)?;
        // One that is ending removes its sockets first, then lets go.
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOCK_PATIENCE / 20),
                Err(fs::TryLockError::WouldBlock) => {
                    let pid = fs::read_to_string(directory.lock_file()).unwrap_or_default();
                    return Err(TreeError::Taken { path: path.to_owned(), pid: pid.trim().to_owned() });
                }
                Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        sign(&mut lock).map_err(failed)?;
        let guarded = |path| guard_directory(path, group).map_err(TreeError::Group);
        guarded(path)?;
        let tree = Self { directory: directory.clone(), lock };
        tree.clear();
        private_directories(&directory.images()).map_err(failed)?;
        empty(&directory.enclosures()).map_err(failed)?;
        private_directories(&directory.terms()).map_err(failed)?;
        private_directories(&directory.functions()).map_err(failed)?;
        guarded(&directory.functions())?;
        Ok(tree)
    }

    /// Takes the directory over, with its lock, as the server before left it: its sockets are still listened to.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn inherit(directory: &ServerDirectory, lock: OwnedFd) -> Result<Self, TreeError> {
        let mut lock = File::from(lock);
        sign(&mut lock).map_err(|error| TreeError::Io { path: directory.lock_file(), error })?;
        let enclosures = directory.enclosures();
        empty(&enclosures).map_err(|error| TreeError::Io { path: enclosures, error })?;
        Ok(Self { directory: directory.clone(), lock })
    }

    /// What keeps other servers out.
    #[must_use]
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// A function's directory, which is there.
    #[must_use]
    pub fn function(&self, name: &str) -> FunctionDirectory {
        self.directory.function(name)
    }

    /// Makes a function's directory unless it is there, and removes the sockets in it.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn make_function(&self, name: &str) -> Result<FunctionDirectory, TreeError> {
        let function = self.directory.function(name);
        check_socket_path(&function.lifeline_socket())?;
        let make = || {
            private_directories(function.path())?;
            fs::set_permissions(function.path(), Permissions::from_mode(0o755))?;
            remove_sockets(&function);
            Ok(())
        };
        make().map_err(|error| TreeError::Io { path: function.path().to_owned(), error })?;
        Ok(function)
    }

    /// Removes a function's directory with all that is in it, and its terms.
    ///
    /// # Errors
    /// [`TreeError`]; one that is not there is no error.
    pub fn remove_function(&self, name: &str) -> Result<(), TreeError> {
        let (directory, terms) = (self.directory.function(name), self.terms(name));
        let directory = directory.path();
        gone(fs::remove_dir_all(directory))
            .map_err(|error| TreeError::Stays { path: directory.to_owned(), error })?;
        gone(fs::remove_file(&terms)).map_err(|error| TreeError::Stays { path: terms, error })
    }

    /// The file of what was said of a function when it was made.
    #[must_use]
    pub fn terms(&self, name: &str) -> PathBuf {
        self.directory.terms().join(name)
    }

    /// The functions whose directories are there, from this server's life or an earlier one.
    #[must_use]
    pub fn functions(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.functions()).into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let names = directories.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| check_function_name(name).is_ok()).collect()
    }

    /// Removes the sockets. Function directories stay, and images: they are a cache by content.
    pub fn clear(&self) {
        // What cannot be removed is found out when it is made again.
        let _ = fs::remove_file(self.directory.admin_socket());
        for name in self.functions() {
            remove_sockets(&self.directory.function(&name));
        }
    }
}

/// Makes a directory anew for what is good for one life of a server's workers.
fn empty(directory: &Path) -> io::Result<()> {
    gone(fs::remove_dir_all(directory))?;
    private_directories(directory)
}

/// Writes this process's number into a lock.
fn sign(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

/// What is not there is gone.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn remove_sockets(function: &FunctionDirectory) {
    for socket in [function.control_socket(), function.lifeline_socket()] {
        // What cannot be removed keeps the function closed, and the log says so.
        let _ = fs::remove_file(socket);
    }
}

impl Drop for ServerTree {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Opens a socket to everybody who can see it. Somebody may have put a link in its place since it was made: that is no
/// socket, and is not followed.
///
/// # Errors
/// `InvalidData` if it is no socket, or what the kernel says.
pub fn open_to_all(socket: &Path) -> io::Result<()> {
    let place = rustix::fs::open(socket, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode);
    if kind != FileType::Socket {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "something else was put in its place"));
    }
    // By the descriptor: chmod(2) by name would follow a link that is put there now.
    fs::set_permissions(format!("/proc/self/fd/{}", place.as_raw_fd()), Permissions::from_mode(0o666))
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
        let first = ServerTree::take(&directory, None).unwrap();
        assert!(matches!(ServerTree::take(&directory, None), Err(TreeError::Taken { .. })));
        assert_eq!(fs::metadata(directory.path()).unwrap().mode() & 0o777, 0o700);
        drop(first);
        ServerTree::take(&directory, None).unwrap();
    }

    #[test]
    fn what_a_dead_server_left_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let directory = ServerDirectory::new(parent.path().join("torpor"));
        let dead = ServerTree::take(&directory, None).unwrap();
        let function = dead.make_function("f").unwrap();
        std::os::unix::net::UnixListener::bind(function.lifeline_socket()).unwrap();
        fs::write(directory.images().join("kept"), "").unwrap();
        fs::write(directory.functions().join("no directory"), "").unwrap();
        let before = FileIdentity::of(function.path());
        drop(dead);
        let next = ServerTree::take(&directory, None).unwrap();
        assert!(!function.lifeline_socket().exists());
        assert_eq!(FileIdentity::of(function.path()), before, "containers have it mounted");
        assert_eq!(next.functions(), ["f"]);
        assert!(directory.images().join("kept").exists());
    }

    #[test]
    fn the_lock_names_its_holder_and_who_does_not_get_it_leaves_the_name() {
        let parent = tempfile::tempdir().unwrap();
        let directory = ServerDirectory::new(parent.path().join("torpor"));
        let _tree = ServerTree::take(&directory, None).unwrap();
        ServerTree::take(&directory, None).unwrap_err();
        let signed = fs::read_to_string(directory.lock_file()).unwrap();
        assert_eq!(signed, format!("{}\n", std::process::id()));
    }

    #[test]
    fn what_a_container_puts_in_the_place_of_a_socket_is_not_opened() {
        let parent = tempfile::tempdir().unwrap();
        let (secret, link) = (parent.path().join("secret"), parent.path().join("control.sock"));
        fs::write(&secret, "").unwrap();
        fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        open_to_all(&link).unwrap_err();
        assert_eq!(fs::metadata(&secret).unwrap().mode() & 0o777, 0o600);
        fs::remove_file(&link).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&link).unwrap();
        open_to_all(&link).unwrap();
        assert_eq!(fs::metadata(&link).unwrap().mode() & 0o777, 0o666);
    }

    #[test]
    fn a_removed_function_leaves_nothing_and_what_its_container_linked_to_stays() {
        let parent = tempfile::tempdir().unwrap();
        let directory = ServerDirectory::new(parent.path().join("torpor"));
        let tree = ServerTree::take(&directory, None).unwrap();
        let function = tree.make_function("f").unwrap();
        let elsewhere = parent.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("letter"), "dear").unwrap();
        std::os::unix::fs::symlink(&elsewhere, function.path().join("link")).unwrap();
        fs::write(tree.terms("f"), "").unwrap();
        tree.remove_function("f").unwrap();
        assert!(!function.path().exists() && !tree.terms("f").exists());
        assert!(elsewhere.join("letter").exists());
        tree.remove_function("f").unwrap();
    }

    #[test]
    fn a_directory_with_other_things_in_it_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("letter"), "dear").unwrap();
        fs::set_permissions(parent.path(), Permissions::from_mode(0o755)).unwrap();
        let refused = ServerTree::take(&ServerDirectory::new(parent.path()), None);
        assert!(matches!(refused, Err(TreeError::Foreign(_))));
        assert_eq!(fs::metadata(parent.path()).unwrap().mode() & 0o777, 0o755);
    }

    #[test]
    fn a_path_too_long_for_sockets_is_refused_at_once() {
        let directory = ServerDirectory::new(format!("/tmp/{}", "x".repeat(120)));
        assert!(matches!(ServerTree::take(&directory, None), Err(TreeError::TooLong(_))));
    }
}
