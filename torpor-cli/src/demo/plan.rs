//! Which functions the demo runs.

use super::DemoError;
use super::network::{Kind, Network};
use super::process::Event;
use super::pytorch;
use super::session::Function;
use crate::error::CliError;
use std::env;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use torpor_proto::control::admin::Gpu;

/// The functions that need nothing but a driver: names, kinds, seeds of the weights.
const NATIVE: [(&str, Kind, u64); 4] = [
    ("mlp-a", Kind::Mlp, 1),
    ("mlp-b", Kind::Mlp, 2),
    ("convnet-a", Kind::Convnet, 3),
    ("convnet-b", Kind::Convnet, 4),
];

/// The function in PyTorch: its name, and the seed of its weights.
const PYTORCH: (&str, u64) = ("pytorch", 5);

/// How often to look whether PyTorch was found.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// The functions that can run on these GPUs, each with its program. Says if that is not all.
///
/// # Errors
/// If this program cannot find itself, or if the demo is to end.
pub fn plan(gpus: &[Gpu], events: &Receiver<Event>) -> Result<Vec<(Function, Command)>, CliError> {
    let program = env::current_exe()?;
    let mut functions = Vec::new();
    for (name, kind, seed) in NATIVE {
        let network = Arc::new(Network::new(kind, seed));
        let mut command = Command::new(&program);
        command.args(["demo-function", &kind.to_string(), "--seed", &seed.to_string()]);
        let kernels = Some(network.launches());
        functions.push((Function { name, network, kernels }, command));
    }
    if gpus.iter().any(|gpu| gpu.simulated) {
        eprintln!("no function in PyTorch: its kernels are not PTX, which is what a simulated GPU can run");
    } else if !find_pytorch(events)? {
        eprintln!("no function in PyTorch: python3 finds none that is built for NVIDIA GPUs");
    } else {
        let (name, seed) = PYTORCH;
        let network = Arc::new(Network::new(Kind::Mlp, seed));
        let command = pytorch::command(&network, seed);
        functions.push((Function { name, network, kernels: None }, command));
    }
    Ok(functions)
}

fn find_pytorch(events: &Receiver<Event>) -> Result<bool, DemoError> {
    let mut probe = pytorch::Probe::start();
    loop {
        if let Some(found) = probe.found() {
            return Ok(found);
        }
        // No function runs yet, so nothing else can happen.
        if let Ok(Event::Interrupted(signal)) = events.recv_timeout(PROBE_INTERVAL) {
            return Err(DemoError::Interrupted(signal));
        }
    }
}
