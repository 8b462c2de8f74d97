//! A function: its directory, and the two sockets in it.

use crate::server::node::Node;
use crate::server::tree::open_to_all;
use crate::server::{control, lifeline};
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use torpor_proto::directory::FunctionDirectory;

/// Connections of one kind that one function may have, at most. Clients are few; the rest is somebody who tries.
const MAX_CONNECTIONS: usize = 512;

/// What a connection needs to know of where it came in.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// The node, which may be gone before its connections are.
    pub node: Weak<Node>,
    /// The function's name.
    pub function: Arc<str>,
}

/// A function whose sockets are open. Dropping it closes them.
#[derive(Debug)]
pub struct Function {
    directory: FunctionDirectory,
    listeners: [JoinHandle<()>; 2],
}

impl Function {
    /// Opens the sockets of a function.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(node: &Arc<Node>, name: &str, directory: FunctionDirectory) -> io::Result<Self> {
        let entrance = Entrance { node: Arc::downgrade(node), function: name.into() };
        let (control, lifeline) = (bind(&directory.control_socket())?, bind(&directory.lifeline_socket())?);
        let listeners = [
            tokio::spawn(listen(control, entrance.clone(), control::serve)),
            tokio::spawn(listen(lifeline, entrance, lifeline::serve)),
        ];
        Ok(Self { directory, listeners })
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

fn bind(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    open_to_all(path)?;
    Ok(listener)
}

/// Accepts connections and serves each in a task of its own.
async fn listen<Serving>(
    listener: UnixListener,
    entrance: Entrance,
    serve: fn(UnixStream, Entrance) -> Serving,
) where
    Serving: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed, so a permit always comes.
        let permit = room.clone().acquire_owned().await;
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
                tracing::warn!(function = &*entrance.function, "cannot accept a connection: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
