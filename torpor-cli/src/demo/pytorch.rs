//! The same network as an ordinary PyTorch program, where that can run.

use super::network::{Layer, Network};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PYTHON: &str = "python3";

const PROGRAM: &str = include_str!("pytorch_function.py");

/// Succeeds if there is a PyTorch that was built for NVIDIA GPUs.
const PROBE: &str = "import sys, torch; sys.exit(torch.version.cuda is None)";

/// How long importing PyTorch may take; from a cold disk it is many seconds.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// A search for PyTorch. Given up when dropped.
#[derive(Debug)]
pub struct Probe {
    child: Option<Child>,
    deadline: Instant,
}

impl Probe {
    /// Begins to look for PyTorch.
    pub fn start() -> Self {
        let mut command = Command::new(PYTHON);
        command.args(["-c", PROBE]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().ok(), deadline: Instant::now() + PROBE_TIMEOUT }
    }

    /// Whether there is one; none if that is not known yet.
    pub fn found(&mut self) -> Option<bool> {
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(None)) if Instant::now() < self.deadline => None,
            Some(Ok(Some(status))) => Some(status.success()),
            _ => Some(false),
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It has usually ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The program that serves a network whose layers are those of the kind `mlp`.
pub fn command(network: &Network, seed: u64) -> Command {
    let entries = network.layers.iter().find_map(|layer| match layer {
        Layer::Embedding { entries } => Some(*entries),
        _ => None,
    });
    let mut command = Command::new(PYTHON);
    command.args(["-c", PROGRAM]).arg(seed.to_string());
    let sizes = [network.input.rows, network.input.columns, entries.unwrap_or(0)];
    command.args(sizes.map(|size| size.to_string()));
    let tensors = network.tensors().into_iter();
    command
        .args(tensors.map(|tensor| format!("{}:{:?}:{:?}", tensor.elements, tensor.center, tensor.spread)));
    command
}
