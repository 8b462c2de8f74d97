//! A client's way through the node: it says hello, comes for its memory, and goes.

use crate::policy::event::What;
use crate::server::clients::addresses::{Addresses, Demand};
use crate::server::clients::{ClientId, Introduction, Token};
use crate::server::entrance::admission::{AdmitError, JoinError};
use crate::server::entrance::printable::printable;
use crate::server::node::{COUNTER, Node};
use crate::server::settings::{self, Isolation};
use crate::server::workers::executor::Executor;
use crate::server::workers::gpu::Gpu;
use crate::server::workers::order::{ClientMemory, NotServed, Order};
use crate::server::workers::status::State;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use torpor_proto::channel::{ChannelError, MappedChannel};
use torpor_proto::control::client::{Hello, View, Welcome};
use torpor_proto::control::keeper;
use torpor_proto::control::worker::{self, Attach};
use torpor_proto::mapping::create_sealed;

/// How long a worker may take to say that it serves a client: less than the client waits for all (30 s), so that it
/// learns the reason.
pub const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a worker usually takes at most to let go of a client.
const DETACH_PATIENCE: Duration = Duration::from_secs(10);

/// Workers that may die before they serve a client, until the client is taken for what ends them.
const MOST_DEATHS: u32 = 3;

const MAX_PROGRAM_CHARACTERS: usize = 64;

impl Node {
    /// A process of `function` says hello: gives it addresses, a GPU and a token.
    ///
    /// # Errors
    /// [`AdmitError`].
    pub async fn admit(&self, function: &str, hello: Hello) -> Result<Welcome, AdmitError> {
        let isolation = self.settings().of(function).isolation;
        let (gpu, device) = self.place(function, isolation).await?;
        let at = match isolation {
            Isolation::Shared => self.gpus[gpu].shared().clone(),
            // Its worker is started before the process comes for its memory.
            Isolation::Strict => self.gpus[gpu].enclosure(function)?,
        };
        let token: Token = random()?;
        let place = [u64::from_ne_bytes(random()?), u64::from_ne_bytes(random()?)];
        let limit = settings::memory_limit_bytes_anywhere(self, function);
        let demands =
            (Demand::arena(limit), Demand::host(self.options.host_bytes, self.options.staging_bytes));
        let program = printable(&hello.program, MAX_PROGRAM_CHARACTERS);
        let who = Introduction { function: function.to_owned(), program, at };
        let max_clients = self.settings().of(function).max_clients;
        let (client, addresses) =
            self.clients().admit(who, max_clients, demands, (token, place), Instant::now())?;
        let Addresses { arena, host } = addresses;
        let settings = settings::settings_of(self, client.0, &addresses, function, gpu);
        Ok(Welcome {
            client: client.0,
            token: token.to_vec(),
            arena_address: arena.address,
            arena_bytes: arena.bytes,
            host_address: host.address,
            host_bytes: host.bytes,
            staging_bytes: self.options.staging_bytes,
            spin_us: self.options.flags.wait_spin_us(),
            memory_limit_bytes: settings.memory_limit_bytes,
            device: Some((*device).clone()),
            devices: self.device_names(function),
        })
    }

    /// A process of `function` looks at its device: that of the function's clients, or one that it could have.
    ///
    /// # Errors
    /// [`AdmitError`].
    pub async fn look(&self, function: &str) -> Result<View, AdmitError> {
        let theirs = self.clients().gpu_of(function);
        let device = theirs.and_then(|gpu| Some((gpu, self.gpus.get(gpu)?.status().device?)));
        let (gpu, device) = match device {
            Some(known) => known,
            None => self.place(function, Isolation::Shared).await?,
        };
        let memory_limit_bytes = settings::memory_limit_bytes_on(self, function, gpu);
        let sensors = self.sensors.read(device.uuid.clone()).await;
        let devices = self.device_names(function);
        Ok(View { device: Some((*device).clone()), memory_limit_bytes, sensors: Some(sensors), devices })
    }

    /// A process comes for its memory. When this returns, its GPU's worker serves it.
    ///
    /// # Errors
    /// [`JoinError`]; the token is used up all the same, and nothing else is left of the client.
    pub async fn join(
        &self,
        function: &str,
        token: &Token,
        pid: u32,
    ) -> Result<(ClientId, Arc<ClientMemory>), JoinError> {
        let (id, addresses, at) = {
            let mut clients = self.clients();
            let last = clients.last_id();
            let client = clients.take(function, token, pid, Instant::now()).ok_or(JoinError::Token)?;
            // Before its worker hears of it.
            self.keeper.keep(COUNTER, &keeper::Counter { last }, &[]);
            self.keep_client(client);
            (client.id, client.addresses, client.introduction.at.clone())
        };
        match self.attach(id, &addresses, &at, function).await {
            Ok(memory) => {
                self.clients().serve(id, memory.clone());
                let gpu = at.gpu;
                self.events().tell(What::ClientAttached { client: id.0, function: function.into(), gpu });
                // They may have changed since it was sent to its worker.
                settings::tell_worker(self, id);
                Ok((id, memory))
            }
            Err(error) => {
                self.part(id).await;
                Err(error)
            }
        }
    }

    async fn attach(
        &self,
        id: ClientId,
        addresses: &Addresses,
        at: &Executor,
        function: &str,
    ) -> Result<Arc<ClientMemory>, JoinError> {
        let slow = |_| {
            let silence = at.status().silence;
            JoinError::Slow { silence: silence.map_or_else(String::new, |silence| format!(" ({silence})")) }
        };
        timeout(ATTACH_TIMEOUT, self.attach_to_next(id, addresses, at, function)).await.map_err(slow)?
    }

    /// Attaches a client to the GPU's worker, or to the next one where that one dies before it serves the client.
    async fn attach_to_next(
        &self,
        id: ClientId,
        addresses: &Addresses,
        at: &Executor,
        function: &str,
    ) -> Result<Arc<ClientMemory>, JoinError> {
        let mut deaths = 0;
        loop {
            // Anew each time: a worker that dies may have told the client so there.
            let (channel, channel_file) = MappedChannel::create()?;
            let host_file = create_sealed("torpor-host", addresses.host.bytes).map_err(ChannelError::from)?;
            let memory = Arc::new(ClientMemory { channel: Arc::new(channel), channel_file, host_file });
            let told = settings::settings_of(self, id.0, addresses, function, at.gpu);
            if let Some(client) = self.clients().get_mut(id) {
                client.told = told;
            }
            let attach = self.attach_message(addresses, function, &told);
            let theirs = memory.clone();
            at.store().admit(id, function);
            let answer = at.ask(|done| Order::Attach { attach, memory: theirs, state: None, done }).await;
            let ending = || NotServed::NoWorker("the server is ending".to_owned());
            let Err(refused) = answer.ok_or_else(ending)? else { return Ok(memory) };
            deaths += u32::from(matches!(refused, NotServed::Died(_)));
            if matches!(refused, NotServed::Refused(_)) || deaths == MOST_DEATHS || *self.stop.borrow() {
                return Err(refused.into());
            }
            at.store().released(id);
            let mut status = at.status.clone();
            let next = status.wait_for(|status| status.state != State::Starting).await;
            if next.map_or(true, |status| status.state != State::Ready) {
                return Err(refused.into());
            }
        }
    }

    /// What a worker is told of a client that it is to serve, from the beginning.
    pub(in crate::server) fn attach_message(
        &self,
        addresses: &Addresses,
        function: &str,
        told: &worker::Settings,
    ) -> Attach {
        let Addresses { arena, host } = *addresses;
        Attach {
            client: told.client,
            function: function.to_owned(),
            arena_address: arena.address,
            arena_bytes: arena.bytes,
            host_address: host.address,
            host_bytes: host.bytes,
            staging_bytes: self.options.staging_bytes,
            memory_limit_bytes: told.memory_limit_bytes,
            writeback: told.writeback,
            pinned: told.pinned,
            pinned_limit_bytes: told.pinned_limit_bytes,
            image_limit_bytes: told.image_limit_bytes,
            resumed: false,
            whole: told.whole,
            kernel_timeout_ms: told.kernel_timeout_ms,
            slo_ms: told.slo_ms,
            has_neighbours: self.gpus.len() > 1,
            link: 0,
            home: None,
            is_tried: false,
            held: false,
        }
    }

    /// A client is gone. When this returns, nothing is left of it, and its addresses are free.
    pub async fn part(&self, id: ClientId) {
        let Some(at) = self.clients().leave(id) else { return };
        let detached = at.ask(|done| Order::Detach { client: id.0, done });
        tokio::pin!(detached);
        if timeout(DETACH_PATIENCE, &mut detached).await.is_err() {
            tracing::warn!(
                client = id.0,
                gpu = at.gpu,
                "the worker has not let go of a client; its addresses stay taken"
            );
            detached.await;
        }
        // What it left where it was before has its addresses, which are the next client's.
        for other in self.gpus.iter().flat_map(Gpu::executors).filter(|other| !Arc::ptr_eq(other, &at)) {
            // A worker that is ending keeps nothing.
            let _ = other.order(Order::Forget { client: id.0 });
        }
        at.store().forget(id);
        // Before its addresses are another's.
        self.forget_client(id);
        self.clients().release(id);
        self.events().tell(What::ClientLeft { client: id.0 });
    }
}

fn random<const N: usize>() -> Result<[u8; N], AdmitError> {
    let mut bytes = [0; N];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| AdmitError::Random(error.into()))?;
    Ok(bytes)
}
