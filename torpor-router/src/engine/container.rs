//! One container, from its making to its removal.

use crate::config::Container;
use crate::engine::describe::{Known, describe};
use crate::engine::error::{EngineError, is_missing};
use crate::engine::labels::Labels;
use crate::engine::place::Place;
use crate::engine::{Ready, image};
use crate::function::Function;
use crate::logs::Logs;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, LogsOptionsBuilder, StopContainerOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;
use rustix::process::{Pid, getpgid};
use rustix::rand::{GetRandomFlags, getrandom};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, duplex};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use torpor_cdi::Edits;
use torpor_gpuserver::server::size::ByteSize;
use torpor_proto::directory::ServerDirectory;

/// Between two questions to an engine that has not answered.
const RETRY: Duration = Duration::from_secs(1);
/// How often it is asked to remove a container before that is left to the next router.
const REMOVALS: u32 = 5;
/// What is printed and not read yet.
const PIPE_BYTES: usize = 64 << 10;

/// A container that has been started.
#[derive(Debug)]
pub struct Running<'a> {
    engine: &'a Ready,
    id: String,
    /// Where its program will listen: `HOST:PORT`.
    pub address: Arc<str>,
    /// The first process in it, the engine's init, as the host sees it.
    init: Option<i64>,
    memory: Option<ByteSize>,
}

impl Ready {
    /// Makes sure that an image is there. Gives the user that its programs are.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn ensure_image(&self, image: &str, logs: &Logs) -> Result<String, EngineError> {
        image::ensure(&self.docker, &self.address, image, logs).await
    }

    /// Starts a container of a function. If that fails, none is left.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn start(
        &self,
        function: &Function,
        container: &Container,
        image_user: &str,
        instance: u64,
    ) -> Result<Running<'_>, EngineError> {
        let failed = |what| move |error| EngineError::of(&self.address, what, &error);
        let directory = ServerDirectory::new(&self.owner.directory).function(&function.name);
        let edits = Edits::of_all(self.library.installation()).and(Edits::of_function(&directory));
        let labels = Labels { owner: &self.owner, function: &function.name, instance };
        let body = describe(Known {
            deployment: &function.deployment,
            container,
            image_user,
            edits: &edits,
            network: self.network.as_deref(),
            labels: &labels,
        });
        let name = format!("torpor-{}-{instance}-{:08x}", function.name, random());
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let made = self.docker.create_container(Some(options), body).await;
        let id = made.map_err(failed("make the container"))?.id;
        let started = async {
            self.docker.start_container(&id, None).await.map_err(failed("start the container"))?;
            let there = self.docker.inspect_container(&id, None).await;
            let there = there.map_err(failed("describe the container"))?;
            Ok((self.address_of(&there, container.port)?, there.state.and_then(|state| state.pid)))
        };
        match started.await {
            Ok((address, init)) => {
                let address = address.into();
                Ok(Running { engine: self, id, address, init, memory: container.memory })
            }
            Err(error) => {
                self.remove_at_last(&id).await;
                Err(error)
            }
        }
    }

    /// Where a container's port is reached.
    fn address_of(&self, container: &ContainerInspectResponse, port: u16) -> Result<String, EngineError> {
        let settings = container.network_settings.as_ref();
        match &self.network {
            Some(network) => {
                let endpoint = settings.and_then(|settings| settings.networks.as_ref()?.get(network));
                let addresses = endpoint.into_iter().flat_map(|endpoint| {
                    [
                        endpoint.ip_address.clone(),
                        endpoint.global_ipv6_address.clone().map(|six| format!("[{six}]")),
                    ]
                });
                let address = addresses.flatten().find(|address| !address.is_empty() && address != "[]");
                let missing = || EngineError::NoAddress { network: network.clone() };
                Ok(format!("{}:{port}", address.ok_or_else(missing)?))
            }
            None => {
                let published = settings.and_then(|settings| {
                    settings.ports.as_ref()?.get(&format!("{port}/tcp"))?.as_ref()?.first()?.host_port.clone()
                });
                published.map(|port| format!("127.0.0.1:{port}")).ok_or(EngineError::NotPublished)
            }
        }
    }

    /// Removes a container, or says that it is left.
    async fn remove_at_last(&self, id: &str) {
        for removal in 1.. {
            match self.remove(id).await {
                Ok(()) => return,
                Err(error) if removal == REMOVALS => {
                    let error = EngineError::of(&self.address, "remove it", &error);
                    tracing::warn!("the container {id} is left, and the next router removes it: {error}");
                    return;
                }
                Err(_) => sleep(RETRY).await,
            }
        }
    }
}

impl Running<'_> {
    /// The process group of its program, once that has begun: the init starts it as the first of its group. 0 if that is not
    /// known, as in a container, whose processes have other numbers than the host's.
    #[must_use]
    pub fn process_group(&self) -> u32 {
        let init = self.init.filter(|&pid| pid > 0 && self.engine.place == Place::Host);
        let program = init.and_then(|init| {
            let children = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).ok()?;
            children.split_whitespace().next()?.parse().ok().and_then(Pid::from_raw)
        });
        let first = program.filter(|&program| getpgid(Some(program)) == Ok(program));
        first.map_or(0, |program| program.as_raw_nonzero().get().cast_unsigned())
    }

    /// Passes on what the container prints, until it ends.
    pub fn print_to(&self, function: Arc<Function>, instance: u64) -> JoinHandle<()> {
        let options = LogsOptionsBuilder::new().follow(true).stdout(true).stderr(true).build();
        let (docker, id) = (self.engine.docker.clone(), self.id.clone());
        tokio::spawn(async move {
            let mut printed = docker.logs(&id, Some(options));
            let (mut out, its_out) = duplex(PIPE_BYTES);
            let (mut err, its_err) = duplex(PIPE_BYTES);
            let pass_on = async move {
                // An engine that stops answering is told of by who waits for the container's end.
                while let Some(Ok(piece)) = printed.next().await {
                    let pipe = if matches!(piece, LogOutput::StdErr { .. }) { &mut err } else { &mut out };
                    // The other end is read until this one is dropped.
                    let _ = pipe.write_all(&piece.into_bytes()).await;
                }
            };
            let logs = &function.logs;
            tokio::join!(pass_on, logs.take_from(instance, its_out), logs.take_from(instance, its_err));
        })
    }

    /// Waits for the container's end, and says how it was. An engine that stops answering does not end its containers.
    pub async fn ended(&self) -> String {
        loop {
            let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
            let mut waiting = Box::pin(self.engine.docker.wait_container(&self.id, Some(options)));
            let code = match waiting.next().await {
                Some(Ok(answer)) => answer.status_code,
                Some(Err(Error::DockerContainerWaitError { code, .. })) => code,
                Some(Err(error)) if is_missing(&error) => return "removed by somebody else".to_owned(),
                Some(Err(_)) | None => {
                    sleep(RETRY).await;
                    continue;
                }
            };
            let state =
                self.engine.docker.inspect_container(&self.id, None).await.ok().and_then(|it| it.state);
            return match (state.is_some_and(|state| state.oom_killed == Some(true)), self.memory) {
                (true, Some(memory)) => {
                    format!("ended (status {code}): it wanted more than its container_memory, {memory}")
                }
                (true, None) => format!("ended (status {code}): the machine had no memory for it"),
                (false, _) => format!("ended (status {code})"),
            };
        }
    }

    /// Asks the program to end, and kills it after `grace`.
    pub async fn stop(&self, grace: Duration) {
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        // One that does not stop is killed when it is removed.
        let _ = self.engine.docker.stop_container(&self.id, Some(options)).await;
    }

    /// Removes the container.
    pub async fn remove(self) {
        self.engine.remove_at_last(&self.id).await;
    }
}

/// Makes a name nobody else's.
fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness it is the engine who says that a name is taken.
    let _ = getrandom(&mut bytes, GetRandomFlags::empty());
    u32::from_ne_bytes(bytes)
}
