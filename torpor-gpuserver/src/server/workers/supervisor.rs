//! The task that keeps a worker running for a GPU.
//!
//! A worker that dies takes those of its clients with it that are not covered (their later calls fail), and nothing else: the spare
//! takes its place, or another one is started, and those that are covered go on there. After one that served nobody another one is
//! started after a short pause, which grows as long as workers keep dying.

use crate::gpu_limit::gpu_limit_bytes;
use crate::policy::event::What;
use crate::server::store::Store;
use crate::server::workers::executor::Executor;
use crate::server::workers::gpu::stopped;
use crate::server::workers::gpu_time::GpuTimes;
use crate::server::workers::inherited::Inherited;
use crate::server::workers::kind::{Kind, Site};
use crate::server::workers::leaving::Leaving;
use crate::server::workers::ledger::Seat;
use crate::server::workers::order::{Attachment, Death, NotServed, Order, Outgoing};
use crate::server::workers::process::{LAST_WORDS, StartError, WorkerProcess};
use crate::server::workers::served::Served;
use crate::server::workers::serving::{End, Threads};
use crate::server::workers::spare::{Spare, Standby};
use crate::server::workers::status::{SpareState, State, Status};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use torpor_proto::control::worker::{DeviceFault, Resume, ToWorker, to_worker};
use torpor_proto::error::CudaError;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A worker that served as long as this was healthy; the pauses begin anew.
const HEALTHY: Duration = Duration::from_secs(30);

/// Keeps one worker running.
pub(super) struct Supervisor {
    pub(super) site: Site,
    pub(super) kind: Kind,
    /// What its worker has of the GPU's memory.
    pub(super) seat: Option<Seat>,
    pub(super) store: Arc<Store>,
    pub(super) inbox: mpsc::UnboundedReceiver<Order>,
    pub(super) status: watch::Sender<Status>,
    pub(super) times: Arc<Mutex<GpuTimes>>,
    pub(super) served: Served,
    pub(super) lost_context: Option<CudaError>,
    /// Who may have lost it, the most suspicious last, and who has, as the worker says: nobody, unless it has said so.
    pub(super) accused: DeviceFault,
    /// Somebody was served by the worker.
    pub(super) has_served: bool,
    pub(super) spare: Spare,
    /// The worker before, if its process is not gone yet.
    pub(super) leaving: Option<Leaving>,
    /// The last one lost its context. So may the next one: who it was is tried there, and who did that once does it again.
    pub(super) follows_a_fault: bool,
    /// The worker of the server before.
    pub(super) inherited: Option<WorkerProcess>,
    /// Those before that one.
    pub(super) earlier: Vec<WorkerProcess>,
}

impl Supervisor {
    pub(super) fn new(
        site: Site,
        kind: Kind,
        store: Arc<Store>,
        inherited: Inherited,
    ) -> (Arc<Executor>, Self) {
        let (orders, inbox) = mpsc::unbounded_channel();
        let is_enclosure = matches!(kind, Kind::Enclosure { .. });
        let has_spare = site.recipe.begin.spare && !is_enclosure;
        let starting = Status {
            state: State::Starting,
            device: None,
            worker_pid: None,
            worker_restarts: 0,
            silence: None,
            spare: if has_spare { SpareState::Starting } else { SpareState::Off },
        };
        let (publish, status) = watch::channel(starting);
        let spare = match has_spare {
            true => Spare::new(&site.recipe, site.index, &publish, &site.stop, inherited.spare),
            false => Spare::Off,
        };
        let served = Self::served(&site, &kind, inherited.clients);
        let times = Arc::<Mutex<GpuTimes>>::default();
        let executor = Executor::new(site.at, is_enclosure, status, store.clone(), orders, times.clone());
        let supervisor = Self {
            site,
            kind,
            seat: None,
            store,
            inbox,
            status: publish,
            times,
            served,
            inherited: inherited.first,
            earlier: inherited.leaving,
            lost_context: None,
            accused: DeviceFault::default(),
            has_served: false,
            spare,
            leaving: None,
            follows_a_fault: false,
        };
        (Arc::new(executor), supervisor)
    }

    /// Until the server is to end, or an enclosure is closed.
    pub(super) async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        self.await_earlier().await;
        if self.inherited.as_ref().is_none_or(|worker| worker.device().is_none()) {
            self.restore_unconfirmed();
        }
        while !self.close_if_deserted() {
            let started = Instant::now();
            let reason = match self.live().await {
                Ok(End::Stopped | End::Closed) => break,
                Ok(End::Died { reason, .. }) => {
                    let what = self.name(&format!("the worker died ({reason}); starting another"));
                    tracing::error!(gpu = self.site.index, "{what}");
                    reason
                }
                Err(error) => {
                    let what = self.name(&format!("the worker did not start: {error}"));
                    tracing::error!(gpu = self.site.index, "{what}");
                    self.publish(|status| status.state = State::Failed(error.to_string()));
                    error.to_string()
                }
            };
            self.publish(|status| {
                status.worker_pid = None;
                status.silence = None;
                status.worker_restarts += 1;
            });
            pause = match started.elapsed() >= HEALTHY {
                // Whoever ended it is not served again, and others wait for the next one.
                _ if self.has_served => Duration::ZERO,
                // It is there already, and the next spare is made after a pause.
                _ if self.status.borrow().spare.is_ready() => Duration::ZERO,
                true => FIRST_PAUSE,
                false => pause,
            };
            if self.rest(pause, &reason).await {
                break;
            }
            pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        }
        if let Some(Standby { worker, .. }) = self.spare.take().await {
            worker.dismiss().await;
        }
        self.inbox.close();
        self.wait_for_leaving().await;
        self.served.bury(&Death::of("the server is ending"));
    }

    /// One worker, from its start to its end.
    async fn live(&mut self) -> Result<End, StartError> {
        (self.lost_context, self.has_served) = (None, false);
        self.accused = DeviceFault::default();
        // Before there is a process that takes memory, and until there is none any more.
        let seat = self.sit_down().await?;
        let inherited = self.inherited.take();
        let resumes = inherited.as_ref().is_some_and(|worker| worker.device().is_some());
        let standby = match inherited {
            Some(worker) => Some(Standby { device: worker.device(), worker }),
            None => self.spare.take().await,
        };
        let (mut worker, device) = match standby {
            Some(Standby { worker, device }) => (worker, device),
            None => (WorkerProcess::spawn(&self.site.recipe, self.site.index, false).await?, None),
        };
        worker.serves();
        self.publish(|status| status.worker_pid = worker.pid());
        let what = match device {
            Some(_) if resumes => "its worker goes on under this server",
            Some(_) => "the spare worker has taken over",
            None => "is ready",
        };
        let ready = match device {
            Some(device) => Ok(device),
            None => tokio::select! {
                ready = worker.ready() => ready.map(Arc::new),
                _ = stopped(&mut self.site.stop) => {
                    worker.dismiss().await;
                    return Ok(End::Stopped);
                }
            },
        };
        let device = match ready {
            Ok(device) => device,
            Err(error) => {
                let _ = worker.epitaph(LAST_WORDS).await;
                self.served.bury(&Death::of(error.to_string()));
                return Err(error);
            }
        };
        worker.hold();
        tracing::info!(gpu = self.site.index, pid = worker.pid(), "{}: {}", device.name, self.name(what));
        let name = device.name.clone();
        let (limit, total) = (self.site.recipe.begin.gpu_limit_bytes, device.total_memory_bytes);
        let limit_bytes = gpu_limit_bytes(limit, total, self.site.recipe.begin.spare);
        let (outbox, outgoing) = mpsc::unbounded_channel();
        if resumes {
            self.has_served = self.served.count() > 0;
            let (server, last_link) = (self.site.recipe.server, self.site.peers.inherited());
            let message = ToWorker { body: Some(to_worker::Body::Resume(Resume { server, last_link })) };
            // The receiver is here.
            let _ = outbox.send(Outgoing { message, attachment: Attachment::Nothing });
        }
        self.seat = match seat {
            Some(seat) => {
                seat.connect(outbox.clone());
                Some(seat)
            }
            None => {
                self.site.words.events.tell(What::WorkerStarted { gpu: self.site.at, limit_bytes });
                Some(self.site.ledger.host(limit_bytes, outbox.clone(), resumes))
            }
        };
        self.publish(|status| {
            status.device = Some(device);
            status.state = State::Ready;
        });
        self.spare.keep(std::mem::take(&mut self.follows_a_fault));
        let at_store = worker.id();
        match resumes {
            true => self.store.reconnect(at_store, self.site.index, outbox.clone(), self.served.clients()),
            false => self.store.connect(at_store, self.site.index, outbox.clone()),
        }
        if let Some(peers) = self.peers() {
            peers.connect(self.site.at, (self.site.index, &name), &outbox);
        }
        if self.site.words.events.chronicle().is_followed()
            && let Some(message) = self.served.order(Order::Follow { events: true })
        {
            // The receiver is here.
            let _ = outbox.send(message);
        }
        let end = self.serve(&worker, at_store, &outbox, outgoing).await;
        let unlinked = self.peers().map(|peers| peers.disconnect(self.site.at)).unwrap_or_default();
        unlinked.into_iter().for_each(|what| self.site.words.events.tell(what));
        self.store.disconnect(at_store);
        match end {
            End::Stopped => {
                self.served.fail(CudaError::DEVICE_UNAVAILABLE);
                worker.dismiss().await;
                Ok(End::Stopped)
            }
            End::Closed => {
                let pid = worker.pid();
                worker.dismiss().await;
                self.seat = None;
                tracing::info!(
                    gpu = self.site.index,
                    pid,
                    "{}",
                    self.name("nobody needs it any more; it has ended")
                );
                Ok(End::Closed)
            }
            End::Died { reason, threads } => {
                tracing::debug!(gpu = self.site.index, "the worker serves no longer: {reason}");
                self.times(GpuTimes::bury);
                // Not ready from now on, before anybody can be placed here again.
                self.publish(|status| status.state = State::Starting);
                let error = self.lost_context.unwrap_or(CudaError::LAUNCH_FAILED);
                self.served.fail(error);
                // One whose context is lost has said why.
                let patience = if self.lost_context.is_some() { Duration::ZERO } else { LAST_WORDS };
                let DeviceFault { suspects, culprit, is_unsure, .. } = std::mem::take(&mut self.accused);
                self.follows_a_fault = self.lost_context.is_some();
                let (what, fault) = ("its GPU's worker died".to_owned(), self.lost_context);
                let death = Arc::new(Death { reason: what, fault, suspects, culprit, is_unsure });
                self.wait_for_leaving().await;
                let reason = if threads != Threads::Running && self.status.borrow().spare.is_ready() {
                    self.let_leave((worker, threads), patience, death, error);
                    reason
                } else {
                    self.spare.hurry();
                    let reason = format!("{reason}; {}", worker.epitaph(patience).await);
                    let mut served = self.take_served();
                    self.bereave(&mut served, death, error);
                    reason
                };
                self.seat = None;
                if matches!(self.kind, Kind::Shared) {
                    let (gpu, reason) = (self.site.at, reason.clone());
                    self.site.words.events.tell(What::WorkerLost { gpu, reason });
                }
                Ok(End::Died { reason, threads })
            }
        }
    }

    /// Waits before the next worker, and refuses what is asked meanwhile. True if the server is ending.
    async fn rest(&mut self, pause: Duration, reason: &str) -> bool {
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(until) => return false,
                _ = stopped(&mut self.site.stop) => return true,
                order = self.inbox.recv() => match order {
                    Some(Order::Attach { done, .. }) => {
                        let reason = format!("the GPU has no worker now ({reason})");
                        let _ = done.send(Err(NotServed::NoWorker(reason)));
                    }
                    Some(order) => drop(self.take_order(order)),
                    None => return true,
                },
            }
        }
    }

    pub(super) fn times(&self, change: impl FnOnce(&mut GpuTimes)) {
        change(&mut self.times.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn publish(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }
}
