//! The GPU that a new client begins on.

use crate::server::entrance::admission::AdmitError;
use crate::server::node::Node;
use crate::server::settings::{self, Isolation};
use crate::server::workers::status::State;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use torpor_proto::control::client::Device;

/// How long a client waits for a GPU whose worker is being started again. It asks again after that, and its log has the
/// reason.
const GPU_TIMEOUT: Duration = Duration::from_secs(2);

/// Rather than have another context, a strict function has so many clients more on one GPU.
const CLIENTS_PER_CONTEXT: usize = 4;

impl Node {
    /// The next GPU that is ready and that the function may be on, waiting a little for one that is being started.
    pub(super) async fn place(
        &self,
        function: &str,
        isolation: Isolation,
    ) -> Result<(usize, Arc<Device>), AdmitError> {
        let deadline = Instant::now() + GPU_TIMEOUT;
        loop {
            if *self.stop.borrow() {
                return Err(AdmitError::Ending);
            }
            let first = self.next_gpu.fetch_add(1, Ordering::Relaxed);
            let mut starting = false;
            let mut reason = String::new();
            // It may answer again before the client has no patience left.
            let mut silent = None;
            let mut order: Vec<_> = (0..self.gpus.len())
                .map(|offset| (offset, first.wrapping_add(offset) % self.gpus.len()))
                .collect();
            if isolation == Isolation::Strict {
                order.sort_by_key(|&(_, gpu)| self.cost_of_enclosing(function, gpu));
            }
            for (offset, gpu) in order {
                if !settings::may_be_on(self, function, gpu) {
                    continue;
                }
                let status = self.gpus[gpu].status();
                match (status.state, status.device) {
                    (State::Ready, Some(device)) if status.silence.is_some() => {
                        silent.get_or_insert((gpu, device));
                    }
                    (State::Ready, Some(device)) => {
                        // Those passed over were not ready; the turn goes on from the one that was.
                        self.next_gpu.fetch_add(offset, Ordering::Relaxed);
                        return Ok((gpu, device));
                    }
                    (State::Failed(why), _) => reason = format!(" ({why})"),
                    _ => starting = true,
                }
            }
            if let Some(silent) = silent {
                return Ok(silent);
            }
            if !starting {
                return Err(AdmitError::NoGpu(reason));
            }
            if Instant::now() >= deadline {
                return Err(AdmitError::GpuStarting);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// What speaks against a GPU for a strict function, which stays where it begins: the smallest is the best.
    fn cost_of_enclosing(&self, function: &str, gpu: usize) -> (bool, usize) {
        let clients = self.clients();
        let here = clients.iter().filter(|client| client.introduction.gpu() == gpu).count();
        let is_new = !self.gpus[gpu].enclosed().iter().any(|(name, _)| name == function);
        (!self.gpus[gpu].may_enclose(function), here + if is_new { CLIENTS_PER_CONTEXT } else { 0 })
    }
}
