//! A GPU of the node, as the rest of the server sees it: what is known of it, and where its worker is given orders.

use crate::server::scheduler::Words;
use crate::server::store::Store;
use crate::server::workers::gpu_time::GpuTimes;
use crate::server::workers::learned::Learned;
use crate::server::workers::order::Order;
use crate::server::workers::outstanding::Served;
use crate::server::workers::peers::Peers;
use crate::server::workers::process::Recipe;
use crate::server::workers::spare::Spare;
use crate::server::workers::status::{SpareState, State, Status};
use crate::server::workers::supervisor::Supervisor;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// A GPU of the node.
#[derive(Debug)]
pub struct Gpu {
    /// Its number, as the driver counts.
    pub index: u32,
    /// Where its worker is sent orders.
    pub orders: mpsc::UnboundedSender<Order>,
    /// What is known of it.
    pub status: watch::Receiver<Status>,
    times: Arc<Mutex<GpuTimes>>,
    peers: Arc<Peers>,
}

impl Gpu {
    /// Starts a worker and keeps one running until `stop` turns true. The task ends when the last worker did. `at` is its place among
    /// the server's GPUs; `words` is
    /// told what happens there.
    #[must_use]
    pub(crate) fn supervise(
        at: usize,
        index: u32,
        recipe: Recipe,
        (store, peers): (Arc<Store>, Arc<Peers>),
        learned: Arc<Learned>,
        words: Words,
        stop: watch::Receiver<bool>,
    ) -> (Self, JoinHandle<()>) {
        let (orders, inbox) = mpsc::unbounded_channel();
        let starting = Status {
            state: State::Starting,
            device: None,
            worker_pid: None,
            worker_restarts: 0,
            silence: None,
            spare: if recipe.begin.spare { SpareState::Starting } else { SpareState::Off },
        };
        let (publish, status) = watch::channel(starting);
        let spare = Spare::new(&recipe, index, &publish, &stop);
        let times = Arc::<Mutex<GpuTimes>>::default();
        let supervisor = Supervisor {
            at,
            index,
            recipe,
            store,
            peers: peers.clone(),
            learned,
            words,
            inbox,
            status: publish,
            times: times.clone(),
            stop,
            served: Served::default(),
            lost_context: None,
            accused: (Vec::new(), None),
            has_served: false,
            spare,
            leaving: None,
            has_suspects: false,
        };
        (Self { index, orders, status, times, peers }, tokio::spawn(supervisor.run()))
    }

    /// What is known of it now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// The links to the workers of others, the same of all GPUs.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// How long functions have used it, as far as its workers were asked.
    #[must_use]
    pub fn times(&self) -> GpuTimes {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives an order whose answer comes by the channel that `order` is made of; `None` if there will be none.
    pub async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
        let (done, answer) = oneshot::channel();
        self.orders.send(order(done)).ok()?;
        answer.await.ok()
    }
}

/// Waits until the server is to end.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender, and with it the server, is gone.
    let _ = stop.wait_for(|&stop| stop).await;
}
