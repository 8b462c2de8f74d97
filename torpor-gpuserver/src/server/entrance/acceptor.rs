//! The thread that clients are answered by, with an event loop of its own: whoever says hello does not wait behind the host
//! store and the workers' messages, nor they behind somebody who says hello without end.

use std::io;
use std::thread::JoinHandle;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The running thread. Dropping it ends every conversation and the thread.
#[derive(Debug)]
pub struct Acceptor {
    runtime: Handle,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel::<()>();
        let handle = runtime.handle().clone();
        let serve = move || {
            // Over when it is sent, or nobody can send it any more.
            let _ = runtime.block_on(ended);
            // Files that are still being deleted are no reason to stay.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("acceptor".to_owned()).spawn(serve)?;
        Ok(Self { runtime: handle, end: Some(end), thread: Some(thread) })
    }

    /// Where to spawn conversations with clients.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        drop(self.end.take());
        // A conversation that panicked has been reported, and took nobody along.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
