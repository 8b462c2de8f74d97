//! One instance of a function, from its start to its end: a file for each kind.

mod container;
mod endpoint;
mod health;
mod process;

use crate::config::Processes;
use crate::engine::Engine;
use crate::function::Function;
use crate::node::Node;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long an instance may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(10);

/// How instances are started.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// The `torpor` program.
    pub torpor: PathBuf,
    /// The node server's directory.
    pub directory: PathBuf,
    /// The node server.
    pub node: Arc<Node>,
    /// Who starts containers.
    pub engine: Arc<Engine>,
}

/// Hears that an instance shall end.
#[derive(Debug)]
pub(crate) struct Stop(pub(crate) watch::Receiver<bool>);

impl Stop {
    async fn wanted(&mut self) {
        // Its function is gone, too, if nobody can say it any more.
        drop(self.0.wait_for(|stop| *stop).await);
    }
}

/// Runs an instance to its end. `place` is that of the endpoint, if it is one.
pub(crate) async fn run(
    function: Arc<Function>,
    launcher: Launcher,
    id: u64,
    place: Option<usize>,
    mut stop: Stop,
) {
    let reason = match &function.deployment.processes {
        Processes::Command(command) => process::run(&function, command, &launcher, id, &mut stop).await,
        Processes::Container(container) => {
            container::run(&function, container, &launcher, id, &mut stop).await
        }
        Processes::Endpoints(endpoints) => match place.and_then(|place| endpoints.get(place)) {
            Some(address) => endpoint::run(&function, address.as_str().into(), id, &mut stop).await,
            None => "no longer an endpoint".to_owned(),
        },
    };
    function.instance_ended(id, &reason);
}
