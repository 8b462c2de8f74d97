//! A function: its directory, and the two sockets in it.

use crate::bucket::Bucket;
use crate::server::clients::MAX_ADMITTED_PER_FUNCTION;
use crate::server::entrance::function_log::FunctionLog;
use crate::server::entrance::tree::{FileIdentity, open_to_all};
use crate::server::entrance::{control, lifeline, sockets};
use crate::server::node::Node;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use torpor_proto::directory::FunctionDirectory;
use torpor_proto::layout::MAX_CLIENTS;

/// Connections of one kind that one function may have, at most: all clients of the node may be its, and as many as may be
/// on their way.
const MAX_CONNECTIONS: usize = MAX_CLIENTS as usize + MAX_ADMITTED_PER_FUNCTION;

/// Connections of one kind that one function may make at once, and then in a second: what is more waits. Each costs the
/// server some 50 µs.
const CONNECTION_BURST: u32 = MAX_CLIENTS * 2;
const CONNECTIONS_PER_SECOND: u32 = 500;

/// What a connection needs to know of where it came in.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// The node, which may be gone before its connections are.
    pub node: Weak<Node>,
    /// The function's name.
    pub function: Arc<str>,
    /// Where to tell of it.
    pub log: Arc<FunctionLog>,
}

/// A function whose sockets are open. Dropping it closes them.
#[derive(Debug)]
pub struct Function {
    directory: FunctionDirectory,
    sockets: [(PathBuf, Option<FileIdentity>); 2],
    listeners: [JoinHandle<()>; 2],
}

impl Function {
    /// Opens the sockets of a function, or those that the server before left, and serves them in `runtime`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(
        node: &Arc<Node>,
        name: &str,
        directory: FunctionDirectory,
        runtime: &Handle,
        inherited: Option<[OwnedFd; 2]>,
    ) -> io::Result<Self> {
        let function: Arc<str> = name.into();
        let log = FunctionLog::new(function.clone());
        let entrance = Entrance { node: Arc::downgrade(node), function, log };
        let _inside = runtime.enter();
        let paths = [directory.control_socket(), directory.lifeline_socket()];
        let (control, lifeline) = match inherited {
            Some([control, lifeline]) => (sockets::listener(control)?, sockets::listener(lifeline)?),
            None => (bind(&paths[0])?, bind(&paths[1])?),
        };
        sockets::keep(node.keeper(), &kept_name(name), [(&control, &paths[0]), (&lifeline, &paths[1])]);
        let listeners = [
            runtime.spawn(listen(control, entrance.clone(), pace(), control::serve)),
            runtime.spawn(listen(lifeline, entrance, pace(), lifeline::serve)),
        ];
        let sockets = paths.map(|path| (path.clone(), FileIdentity::of(&path)));
        Ok(Self { directory, sockets, listeners })
    }

    /// Whether its sockets are where they were made: somebody may have removed them, or the directory.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.sockets.iter().all(|(path, made)| made.is_some() && FileIdentity::of(path) == *made)
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &FunctionDirectory {
        &self.directory
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        self.listeners.iter().for_each(JoinHandle::abort);
    }
}

/// Under what name the sockets of a function are kept.
pub fn kept_name(function: &str) -> String {
    format!("function/{function}")
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    open_to_all(path)?;
    Ok(listener)
}

/// How fast a function may make connections.
fn pace() -> Bucket {
    Bucket::new(CONNECTION_BURST, CONNECTIONS_PER_SECOND, Instant::now())
}

/// Accepts connections, no faster than a function may make them, and serves each in a task of its own.
async fn listen<Serving>(
    listener: UnixListener,
    entrance: Entrance,
    mut pace: Bucket,
    serve: fn(UnixStream, Entrance) -> Serving,
) where
    Serving: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed, so a permit always comes.
        let permit = room.clone().acquire_owned().await;
        while let Err(wait) = pace.take(Instant::now()) {
            sleep(wait).await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                let serving = serve(stream, entrance.clone());
                tokio::spawn(async move {
                    serving.await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: those that are there may end.
                let function = &*entrance.function;
                entrance.log.tell(|| tracing::warn!(function, "cannot accept a connection: {error}"));
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    static SERVED: AtomicU64 = AtomicU64::new(0);

    async fn count(_: UnixStream, _: Entrance) {
        SERVED.fetch_add(1, Ordering::Relaxed);
    }

    #[tokio::test]
    async fn connections_come_no_faster_than_a_function_may_make_them() {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("socket");
        let (name, begin): (Arc<str>, _) = ("f".into(), Instant::now());
        let entrance = Entrance { node: Weak::new(), function: name.clone(), log: FunctionLog::new(name) };
        let listening =
            tokio::spawn(listen(bind(&socket).unwrap(), entrance, Bucket::new(3, 1, begin), count));
        let connect = || std::os::unix::net::UnixStream::connect(&socket).unwrap();
        let _clients: Vec<_> = (0..50).map(|_| connect()).collect();
        while SERVED.load(Ordering::Relaxed) < 3 {
            sleep(Duration::from_millis(1)).await;
        }
        for _ in 0..50 {
            sleep(Duration::from_millis(1)).await;
            let served = SERVED.load(Ordering::Relaxed);
            // Whatever this machine is busy with.
            let most = 3 + begin.elapsed().as_secs() + 1;
            assert!(served <= most, "{served} were served");
        }
        listening.abort();
    }
}
