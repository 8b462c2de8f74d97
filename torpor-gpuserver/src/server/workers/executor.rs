//! An executor: a worker process that is kept running, as the rest of the server sees it.
//!
//! Each GPU has one for the functions that share it. A strict function has one of its own on each GPU on which it is, its
//! [enclosure](crate::server::workers::enclosures).

use crate::server::store::Store;
use crate::server::workers::gpu_time::GpuTimes;
use crate::server::workers::order::Order;
use crate::server::workers::status::Status;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};

/// A worker process that is kept running.
#[derive(Debug)]
pub struct Executor {
    /// Its GPU's place among the server's.
    pub gpu: usize,
    /// What is known of it.
    pub status: watch::Receiver<Status>,
    /// Whether it is a strict function's own.
    pub is_enclosure: bool,
    store: Arc<Store>,
    orders: mpsc::UnboundedSender<Order>,
    times: Arc<Mutex<GpuTimes>>,
}

impl Executor {
    /// As its supervisor makes it known.
    pub(super) fn new(
        gpu: usize,
        is_enclosure: bool,
        status: watch::Receiver<Status>,
        store: Arc<Store>,
        orders: mpsc::UnboundedSender<Order>,
        times: Arc<Mutex<GpuTimes>>,
    ) -> Self {
        Self { gpu, status, is_enclosure, store, orders, times }
    }

    /// What is known of it now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Where its clients' memory is while they have no GPU.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// How long functions have used it, as far as its workers were asked.
    #[must_use]
    pub fn times(&self) -> GpuTimes {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives an order. False if nobody hears it any more: the server is ending.
    pub fn order(&self, order: Order) -> bool {
        self.orders.send(order).is_ok()
    }

    /// Gives an order whose answer comes by the channel that `order` is made of; `None` if there will be none.
    pub async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
        let (done, answer) = oneshot::channel();
        self.order(order(done)).then_some(())?;
        answer.await.ok()
    }
}

#[cfg(test)]
impl Executor {
    /// One without a worker, whose orders nobody hears.
    pub(crate) fn idle() -> Arc<Self> {
        use crate::server::keeper::Keeper;
        use crate::server::store::StoreOptions;
        use crate::server::workers::status::{SpareState, State};
        let status = Status {
            state: State::Starting,
            device: None,
            worker_pid: None,
            worker_restarts: 0,
            silence: None,
            spare: SpareState::Off,
        };
        let (_, status) = watch::channel(status);
        let options = StoreOptions { slab_bytes: 1 << 21, pool_bytes: 1 << 21, spill: None };
        let store = Store::open(&options, &Keeper::default()).expect("it spills nowhere");
        let (orders, _) = mpsc::unbounded_channel();
        Arc::new(Self::new(0, false, status, store, orders, Arc::default()))
    }
}
