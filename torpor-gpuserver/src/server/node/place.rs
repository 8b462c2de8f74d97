//! The GPU that a new client begins on.

use crate::server::entrance::admission::AdmitError;
use crate::server::node::Node;
use crate::server::settings;
use crate::server::workers::status::State;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use torpor_proto::control::client::Device;

/// How long a client waits for a GPU whose worker is being started again. It asks again after that, and its log has the
/// reason.
const GPU_TIMEOUT: Duration = Duration::from_secs(2);

impl Node {
    /// The next GPU that is ready and that the function may be on, waiting a little for one that is being started.
    pub(super) async fn place(&self, function: &str) -> Result<(usize, Arc<Device>), AdmitError> {
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
            for offset in 0..self.gpus.len() {
                let gpu = first.wrapping_add(offset) % self.gpus.len();
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
}
