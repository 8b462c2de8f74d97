//! Which GPUs of the node can serve, as the node server says every second.

use crate::node_server::{NodeError, NodeServer};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use torpor_proto::control::admin;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A GPU of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// As the driver counts.
    pub index: u32,
    /// What it is.
    pub product: String,
    /// Device memory that functions may use on it, all together.
    pub memory_bytes: u64,
    /// Whether a simulated one stands in for it.
    pub simulated: bool,
    /// What is wrong with it, for people.
    pub trouble: Option<String>,
}

/// What is known of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Its GPUs; those of before, if the server does not answer.
    pub gpus: Vec<Gpu>,
    /// Host memory for their functions' device memory, in bytes.
    pub pool_bytes: u64,
    /// Why the server does not answer.
    pub silence: Option<NodeError>,
}

impl Health {
    /// Whether a GPU can serve functions.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.gpus.iter().any(|gpu| gpu.trouble.is_none())
    }

    /// What is to be known when this was known and the server said that.
    fn after(self, said: Result<(Vec<admin::Gpu>, u64), NodeError>) -> Self {
        match said {
            Ok((gpus, pool_bytes)) => {
                Self { gpus: gpus.into_iter().map(Gpu::from).collect(), pool_bytes, silence: None }
            }
            Err(error) => {
                let trouble = |gpu| Gpu { trouble: Some(error.to_string()), ..gpu };
                let gpus = self.gpus.into_iter().map(trouble).collect();
                Self { gpus, pool_bytes: self.pool_bytes, silence: Some(error) }
            }
        }
    }

    fn tell(&self, before: &Self) {
        match (&self.silence, &before.silence) {
            (Some(error), None) => tracing::error!("{error}"),
            (None, Some(_)) => tracing::info!("the node server answers"),
            _ => {}
        }
        if self.silence.is_some() || before.silence.is_some() {
            return;
        }
        for gpu in &self.gpus {
            let was = before.gpus.iter().find(|was| was.index == gpu.index);
            match (&gpu.trouble, was.and_then(|was| was.trouble.as_ref())) {
                (Some(trouble), None) => tracing::error!("GPU {} serves nobody: {trouble}", gpu.index),
                (None, Some(_)) => tracing::info!("GPU {} serves again", gpu.index),
                _ => {}
            }
        }
    }
}

impl From<admin::Gpu> for Gpu {
    fn from(gpu: admin::Gpu) -> Self {
        let why =
            || if gpu.trouble.is_empty() { format!("it is {}", gpu.state) } else { gpu.trouble.clone() };
        Self {
            index: gpu.index,
            memory_bytes: gpu.limit_bytes,
            simulated: gpu.simulated,
            trouble: (gpu.state != "ready").then(why),
            product: gpu.name,
        }
    }
}

/// What is known of the node, from the first answer or silence on. It is looked at for as long as somebody listens.
pub async fn watch(server: NodeServer) -> watch::Receiver<Health> {
    let first = Health::default().after(ask(&server).await);
    first.tell(&Health::default());
    let (known, listener) = watch::channel(first);
    tokio::spawn(async move {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !known.is_closed() {
            ticks.tick().await;
            let said = ask(&server).await;
            known.send_if_modified(|health| {
                let next = health.clone().after(said);
                next.tell(health);
                let changed = next != *health;
                *health = next;
                changed
            });
        }
    });
    listener
}

async fn ask(server: &NodeServer) -> Result<(Vec<admin::Gpu>, u64), NodeError> {
    Ok((server.gpus().await?, server.pool_bytes().await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(index: u32, state: &str) -> admin::Gpu {
        admin::Gpu { index, state: state.to_owned(), limit_bytes: 5, ..admin::Gpu::default() }
    }

    #[test]
    fn a_gpu_that_is_not_ready_serves_nobody_and_says_why() {
        let health = Health::default().after(Ok((vec![gpu(0, "ready"), gpu(1, "unresponsive")], 9)));
        assert!(health.serves() && health.pool_bytes == 9);
        assert_eq!(health.gpus[0].trouble, None);
        assert_eq!(health.gpus[1].trouble.as_deref(), Some("it is unresponsive"));
        assert!(!Health::default().after(Ok((vec![gpu(0, "failed")], 9))).serves());
    }

    #[test]
    fn gpus_of_a_server_that_is_gone_are_known_and_serve_nobody() {
        let before = Health::default().after(Ok((vec![gpu(0, "ready")], 9)));
        let gone = before.after(Err(NodeError::Refused("no".to_owned())));
        assert!(!gone.serves() && gone.gpus.len() == 1 && gone.pool_bytes == 9);
        assert!(gone.after(Ok((vec![gpu(0, "ready")], 9))).serves());
    }
}
