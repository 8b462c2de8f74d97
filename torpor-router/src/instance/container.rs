//! An instance that is a container, started by the engine.

use crate::config::Container;
use crate::engine::{EngineError, Ready};
use crate::function::Function;
use crate::instance::health::live;
use crate::instance::{GRACE, Launcher, Stop};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use torpor_proto::directory::ServerDirectory;

/// How long the last words of a container that has ended may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Runs a container to its end.
pub(super) async fn run(
    function: &Arc<Function>,
    container: &Container,
    launcher: &Launcher,
    id: u64,
    stop: &mut Stop,
) -> String {
    let prepared = tokio::select! {
        prepared = prepare(function, container, launcher) => prepared,
        () = stop.wanted() => return "stopped".to_owned(),
    };
    let started = match prepared {
        // Not left in between: nobody would know of the container.
        Ok((engine, user)) => engine.start(function, container, &user, id).await,
        Err(error) => Err(error),
    };
    let running = match started {
        Ok(running) => running,
        Err(error) => return format!("cannot be started: {error}"),
    };
    function.logs.push(format!("[{id}] torpor: started on {}", running.address));
    let (address, group) = (running.address.clone(), || running.process_group());
    let printing = running.print_to(function.clone(), id);
    let reason = tokio::select! {
        reason = live(function, id, address, group, running.ended()) => reason,
        () = stop.wanted() => "stopped".to_owned(),
    };
    running.stop(GRACE).await;
    // What is not there by then is lost with the container.
    let _ = timeout(LAST_WORDS, printing).await;
    running.remove().await;
    reason
}

/// What must be there before a container: the function's directory, the engine, and the image, whose user this gives.
async fn prepare<'a>(
    function: &Function,
    container: &Container,
    launcher: &'a Launcher,
) -> Result<(&'a Ready, String), EngineError> {
    let directory = ServerDirectory::new(&launcher.directory).function(&function.name);
    if !directory.path().is_dir() {
        launcher.node.ensure_function(&function.name).await.map_err(EngineError::NoFunction)?;
    }
    let engine = launcher.engine.ready().await?;
    let user = engine.ensure_image(&container.image, &function.logs).await?;
    Ok((engine, user))
}
