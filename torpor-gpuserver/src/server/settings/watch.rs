//! Looks whether the settings file changed: every second, and when told to by SIGHUP.
//!
//! Looking is enough (no inotify): it works on every file system, and on the links of a Kubernetes ConfigMap.

use crate::server::node::Node;
use crate::server::settings::file::SettingsFile;
use crate::server::settings::reload::reload;
use crate::server::workers::gpu::stopped;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};

const INTERVAL: Duration = Duration::from_secs(1);

/// A look that takes longer is told.
const SLOW: Duration = Duration::from_secs(5);

/// What is another when a file was written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    modified: SystemTime,
    bytes: u64,
    inode: u64,
}

impl Stamp {
    /// That of a file; `None` if it is not there. Taken before the file is read: a change in between is seen next time.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self { modified: metadata.modified().ok()?, bytes: metadata.len(), inode: metadata.ino() })
    }
}

/// A task that reads the file again whenever it changed since `stamp`, until the server ends. SIGHUP does not end the
/// process any more when this returns.
///
/// # Errors
/// The signal cannot be caught.
pub fn watch(node: Arc<Node>, path: PathBuf, stamp: Option<Stamp>) -> io::Result<impl Future<Output = ()>> {
    let hangup = signal(SignalKind::hangup())?;
    Ok(look_again_and_again(node, path, stamp, hangup))
}

async fn look_again_and_again(node: Arc<Node>, path: PathBuf, stamp: Option<Stamp>, mut hangup: Signal) {
    let mut stopping = node.stopping();
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = stamp;
    loop {
        let asked = tokio::select! {
            _ = ticks.tick() => false,
            _ = hangup.recv() => true,
            () = stopped(&mut stopping) => return,
        };
        // A file system that hangs must not hold up the server.
        let looked_at = path.clone();
        let look = move || {
            let stamp = Stamp::of(&looked_at);
            (stamp, (asked || stamp != last).then(|| SettingsFile::read(&looked_at)))
        };
        let mut looking = spawn_blocking(look);
        let looked = tokio::select! {
            looked = &mut looking => looked,
            () = sleep(SLOW) => {
                tracing::warn!(
                    "the file system of the settings file {} has not answered for {} seconds; the settings stay as they are",
                    path.display(),
                    SLOW.as_secs()
                );
                tokio::select! {
                    looked = looking => looked,
                    () = stopped(&mut stopping) => return,
                }
            }
            () = stopped(&mut stopping) => return,
        };
        let Ok((stamp, file)) = looked else { return };
        last = stamp;
        match file {
            Some(Ok(file)) => reload(&node, &file).await,
            Some(Err(error)) => tracing::error!("{error}; the settings stay as they are"),
            None => {}
        }
    }
}
