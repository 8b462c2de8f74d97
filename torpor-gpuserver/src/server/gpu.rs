//! A GPU of the node, and the task that keeps a worker running for it.
//!
//! A worker that dies takes its clients with it (their later calls fail), and nothing else: it is started again
//! after a short pause, which grows as long as workers keep dying.

use crate::server::clients::ClientId;
use crate::server::packet::PacketSocket;
use crate::server::served::{NotServed, Order, Outgoing, Served, fault_code};
use crate::server::store::{Store, WorkerId};
use crate::server::worker_process::{Recipe, StartError, WorkerProcess};
use std::io::{self, ErrorKind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use torpor_proto::control::client::Device;
use torpor_proto::control::worker::{FromWorker, from_worker};
use torpor_proto::error::CudaError;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A worker that served as long as this was healthy; the pauses begin anew.
const HEALTHY: Duration = Duration::from_secs(30);

/// How long a worker may leave its messages unread.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a worker whose context is lost may take to end.
const FAULT_GRACE: Duration = Duration::from_secs(2);

/// Whether a GPU can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Its worker is being started.
    Starting,
    /// It serves.
    Ready,
    /// Its worker could not be started; that is tried again and again.
    Failed(String),
}

/// What is known of a GPU.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether it can serve.
    pub state: State,
    /// What its worker says of it, once one was ready.
    pub device: Option<Arc<Device>>,
    /// Its worker's process.
    pub worker_pid: Option<u32>,
    /// Workers that ended.
    pub worker_restarts: u64,
}

/// A GPU of the node.
#[derive(Debug)]
pub struct Gpu {
    /// Its number, as the driver counts.
    pub index: u32,
    /// Where its worker is sent orders.
    pub orders: mpsc::UnboundedSender<Order>,
    /// What is known of it.
    pub status: watch::Receiver<Status>,
}

impl Gpu {
    /// Starts a worker and keeps one running until `stop` turns true. The task ends when the last worker did. `waiting` is
    /// told of clients that wait for their turn there.
    #[must_use]
    pub fn supervise(
        index: u32,
        recipe: Recipe,
        store: Arc<Store>,
        waiting: mpsc::UnboundedSender<ClientId>,
        stop: watch::Receiver<bool>,
    ) -> (Self, JoinHandle<()>) {
        let (orders, inbox) = mpsc::unbounded_channel();
        let starting = Status { state: State::Starting, device: None, worker_pid: None, worker_restarts: 0 };
        let (publish, status) = watch::channel(starting);
        let supervisor = Supervisor {
            index,
            recipe,
            store,
            waiting,
            inbox,
            status: publish,
            stop,
            served: Served::default(),
            lost_context: None,
        };
        (Self { index, orders, status }, tokio::spawn(supervisor.run()))
    }

    /// What is known of it now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Gives an order whose answer comes by the channel that `order` is made of; `None` if there will be none.
    pub async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
        let (done, answer) = oneshot::channel();
        self.orders.send(order(done)).ok()?;
        answer.await.ok()
    }
}

struct Supervisor {
    index: u32,
    recipe: Recipe,
    store: Arc<Store>,
    waiting: mpsc::UnboundedSender<ClientId>,
    inbox: mpsc::UnboundedReceiver<Order>,
    status: watch::Sender<Status>,
    stop: watch::Receiver<bool>,
    served: Served,
    lost_context: Option<CudaError>,
}

/// Why a worker serves no longer.
enum End {
    Stopped,
    Died(String),
}

impl Supervisor {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let started = Instant::now();
            let reason = match self.live().await {
                Ok(End::Stopped) => break,
                Ok(End::Died(reason)) => {
                    tracing::error!(gpu = self.index, "the worker died ({reason}); starting another");
                    reason
                }
                Err(error) => {
                    tracing::error!(gpu = self.index, "the worker did not start: {error}");
                    self.publish(|status| status.state = State::Failed(error.to_string()));
                    error.to_string()
                }
            };
            self.publish(|status| {
                status.worker_pid = None;
                status.worker_restarts += 1;
            });
            pause = if started.elapsed() >= HEALTHY { FIRST_PAUSE } else { pause };
            if self.rest(pause, &reason).await {
                break;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.inbox.close();
        self.served.bury("the server is ending");
    }

    /// One worker, from its start to its end.
    async fn live(&mut self) -> Result<End, StartError> {
        self.lost_context = None;
        let mut worker = WorkerProcess::spawn(&self.recipe, self.index)?;
        self.publish(|status| status.worker_pid = worker.pid());
        let ready = tokio::select! {
            ready = worker.ready() => ready,
            _ = stopped(&mut self.stop) => {
                worker.dismiss().await;
                return Ok(End::Stopped);
            }
        };
        let device = match ready {
            Ok(device) => device,
            Err(error) => {
                let _ = worker.epitaph().await;
                self.served.bury(&error.to_string());
                return Err(error);
            }
        };
        tracing::info!(gpu = self.index, pid = worker.pid(), "{} is ready", device.name);
        self.publish(|status| {
            status.device = Some(Arc::new(device));
            status.state = State::Ready;
        });
        let (outbox, outgoing) = mpsc::unbounded_channel();
        let at_store = self.store.connect(self.index, outbox.clone());
        let end = self.serve(&worker, at_store, &outbox, outgoing).await;
        self.store.disconnect(at_store);
        match end {
            End::Stopped => {
                self.served.fail(CudaError::DEVICE_UNAVAILABLE);
                worker.dismiss().await;
                Ok(End::Stopped)
            }
            End::Died(reason) => {
                // Not ready from now on, before anybody can be placed here again.
                self.publish(|status| status.state = State::Starting);
                self.served.fail(self.lost_context.unwrap_or(CudaError::LAUNCH_FAILED));
                let reason = format!("{reason}; {}", worker.epitaph().await);
                // Nobody reads or writes their chunks any more, and nobody will: their memory on the GPU is gone too.
                self.served.clients().for_each(|client| self.store.forget(ClientId(client)));
                self.served.bury("its GPU's worker died");
                Ok(End::Died(reason))
            }
        }
    }

    async fn serve(
        &mut self,
        worker: &WorkerProcess,
        at_store: WorkerId,
        outbox: &mpsc::UnboundedSender<Outgoing>,
        outgoing: mpsc::UnboundedReceiver<Outgoing>,
    ) -> End {
        let mut sending = pin!(send_all(&worker.socket, outgoing));
        let mut deadline = None;
        loop {
            tokio::select! {
                message = worker.socket.receive_all::<FromWorker>() => match message {
                    Ok(Some((FromWorker { body: Some(body) }, descriptors))) => {
                        self.log(&body);
                        if let from_worker::Body::DeviceFault(fault) = &body {
                            self.lost_context = Some(fault_code(fault.code));
                            deadline.get_or_insert(Instant::now() + FAULT_GRACE);
                        }
                        match self.store.hear(at_store, body) {
                            Some(from_worker::Body::Released(released)) => {
                                let Some(state) = descriptors.into_iter().next() else {
                                    return End::Died(self.describe("it gave a client up without its state"));
                                };
                                self.served.released(released.client, state);
                            }
                            Some(from_worker::Body::Waiting(waiting)) => {
                                // Whoever hears it is gone when the server is ending.
                                let _ = self.waiting.send(ClientId(waiting.client));
                            }
                            Some(body) => self.served.hear(body),
                            None => {}
                        }
                    }
                    Ok(Some((FromWorker { body: None }, _))) => {}
                    Ok(None) => return End::Died(self.describe("it closed its socket")),
                    Err(error) => return End::Died(self.describe(&format!("its socket failed: {error}"))),
                },
                order = self.inbox.recv() => match order {
                    Some(order) => {
                        if let Some(message) = self.served.order(order) {
                            // The receiver is in `sending`, which is over only when this is.
                            let _ = outbox.send(message);
                        }
                    }
                    None => return End::Stopped,
                },
                error = &mut sending => {
                    return End::Died(self.describe(&format!("it takes no messages: {error}")));
                }
                _ = stopped(&mut self.stop) => return End::Stopped,
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    return End::Died(self.describe("it did not end"));
                }
            }
        }
    }

    /// Waits before the next worker, and refuses what is asked meanwhile. True if the server is ending.
    async fn rest(&mut self, pause: Duration, reason: &str) -> bool {
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(until) => return false,
                _ = stopped(&mut self.stop) => return true,
                order = self.inbox.recv() => match order {
                    Some(Order::Attach { done, .. }) => {
                        let _ = done.send(Err(NotServed(format!("the GPU has no worker now ({reason})"))));
                    }
                    Some(order) => drop(self.served.order(order)),
                    None => return true,
                },
            }
        }
    }

    fn describe(&self, what: &str) -> String {
        match self.lost_context {
            Some(error) => format!("its context is lost: {error}; {what}"),
            None => what.to_owned(),
        }
    }

    fn log(&self, body: &from_worker::Body) {
        match body {
            from_worker::Body::ClientFault(fault) => {
                tracing::warn!(
                    gpu = self.index,
                    client = fault.client,
                    "client served no longer: {}",
                    fault.reason
                );
            }
            from_worker::Body::DeviceFault(fault) => {
                let (clients, error) = (self.served.count(), fault_code(fault.code));
                tracing::error!(
                    gpu = self.index,
                    clients,
                    "the GPU's context is lost, {error}: {}",
                    fault.reason
                );
            }
            _ => {}
        }
    }

    fn publish(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }
}

/// Sends what is put into the outbox, while the worker is listened to: a worker that waits until it has been heard takes
/// no messages. Returns only if it takes none at all.
async fn send_all(socket: &PacketSocket, mut outgoing: mpsc::UnboundedReceiver<Outgoing>) -> io::Error {
    while let Some(Outgoing { message, attachment }) = outgoing.recv().await {
        match timeout(SEND_TIMEOUT, socket.send(&message, &attachment.descriptors())).await {
            Ok(Ok(())) => {}
            // It is gone. Whoever listens finds that out too, after its last words.
            Ok(Err(error)) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                break;
            }
            Ok(Err(error)) => return error,
            Err(slow) => return slow.into(),
        }
    }
    std::future::pending().await
}

/// Waits until the server is to end.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender, and with it the server, is gone.
    let _ = stop.wait_for(|&stop| stop).await;
}
