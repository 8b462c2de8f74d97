//! A gRPC server on a Unix socket in a folder of the kubelet's, who may remove it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;

/// Why nobody is served there.
#[derive(Debug, thiserror::Error)]
#[error("the socket {path} cannot be made: {error}")]
pub struct SocketError {
    path: PathBuf,
    error: io::Error,
}

/// Which file something is, as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    /// The number of a file that is gone is given to the next one.
    changed: (i64, i64),
}

impl Identity {
    /// That of what is at a path; `None` if nothing is.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let file = fs::symlink_metadata(path).ok()?;
        Some(Self { device: file.dev(), inode: file.ino(), changed: (file.ctime(), file.ctime_nsec()) })
    }
}

/// A socket that is served until this is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    made: Option<Identity>,
    serving: JoinHandle<()>,
}

impl Socket {
    /// Makes a socket in the place of one that an earlier process left, and serves it.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn serve(path: &Path, routes: Routes) -> Result<Self, SocketError> {
        let listener = listen(path).map_err(|error| SocketError { path: path.to_owned(), error })?;
        let serving = tokio::spawn(async move {
            let incoming = UnixListenerStream::new(listener);
            if let Err(error) = Server::builder().add_routes(routes).serve_with_incoming(incoming).await {
                tracing::error!("a socket is served no more: {error}");
            }
        });
        Ok(Self { path: path.to_owned(), made: Identity::of(path), serving })
    }

    /// Whether it is where it was made, and served.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.made.is_some() && Identity::of(&self.path) == self.made && !self.serving.is_finished()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.serving.abort();
        // What somebody else put there is his.
        if Identity::of(&self.path) == self.made {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Anything else there is no leftover of ours, and makes bind(2) fail.
    if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_of_an_earlier_process_makes_room_and_other_files_stay() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("deeper/plugin.sock");
        let first = Socket::serve(&path, Routes::default()).unwrap();
        let second = Socket::serve(&path, Routes::default()).unwrap();
        assert!(!first.is_there() && second.is_there());
        drop(first);
        assert!(second.is_there(), "who is not there any more removes nothing");
        drop(second);
        assert!(!path.exists());
        fs::write(&path, "dear").unwrap();
        let refused = Socket::serve(&path, Routes::default()).unwrap_err();
        assert!(refused.to_string().contains("plugin.sock"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "dear");
    }
}
