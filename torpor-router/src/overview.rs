//! The node at one look: its GPUs with whose memory is there, and its functions with how they fare. `torpor top` and the page
//! show it.

use crate::recent::Fared;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use torpor_proto::control::admin;

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// The GPUs.
    pub gpus: Vec<GpuView>,
    /// The functions, by name.
    pub functions: Vec<FunctionView>,
    /// What is missing here, and why; empty if nothing is.
    pub trouble: String,
}

/// A GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuView {
    /// As the driver counts.
    pub gpu: u32,
    /// What it is.
    pub name: String,
    /// starting, ready, unresponsive or failed
    pub state: String,
    /// What is wrong with it; empty if nothing is.
    pub trouble: String,
    /// Whether it is simulated.
    pub simulated: bool,
    /// All of its memory.
    pub total_bytes: u64,
    /// Functions whose memory is there, the most first.
    pub shares: Vec<Share>,
    /// What is in use beside that: contexts, code.
    pub other_bytes: u64,
    /// What nobody uses.
    pub free_bytes: u64,
    /// The function that uses it now; several if `active_per_gpu` lets them.
    pub active: Vec<String>,
}

/// A function's memory on a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Whose.
    pub function: String,
    /// How much.
    pub bytes: u64,
}

/// A function: what the node server knows, and what the router knows; either may be missing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FunctionView {
    /// Its name.
    pub name: String,
    /// What the node server knows, if it has heard of it.
    pub node: Option<NodeView>,
    /// What the router knows, if it serves it.
    pub served: Option<ServedView>,
}

/// A function as the node server sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// idle, waiting, active or failed
    pub state: String,
    /// Its processes that use CUDA.
    pub clients: u32,
    /// Where they are.
    pub gpus: Vec<u32>,
    /// Device memory that it has, wherever that is now.
    pub allocated_bytes: u64,
    /// What of it is on GPUs.
    pub resident_bytes: u64,
    /// Times that it was given a GPU, and how often memory had to come for that.
    pub requests: u64,
    /// See `requests`.
    pub swaps: u64,
}

/// A function as the router sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServedView {
    /// Its processes, those on their way included.
    pub instances: usize,
    /// Requests that a process is answering.
    pub running: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Within what time they should be answered, in milliseconds.
    pub slo_ms: Option<u64>,
    /// How they fared in the last minute.
    pub fared: Fared,
}

/// What the node server says.
#[derive(Clone, Debug, Default)]
pub struct NodeReport {
    /// Its GPUs.
    pub gpus: Vec<admin::Gpu>,
    /// Its clients.
    pub clients: Vec<admin::Client>,
    /// Its functions.
    pub functions: Vec<admin::Function>,
}

impl Overview {
    /// Puts together what the node server says and what the router knows of each function that it serves.
    #[must_use]
    pub fn of(node: &NodeReport, served: Vec<(String, ServedView)>, trouble: String) -> Self {
        let gpus = node.gpus.iter().map(|gpu| gpu_view(gpu, &node.clients)).collect();
        let mut functions = BTreeMap::<String, FunctionView>::new();
        for function in &node.functions {
            functions.entry(function.name.clone()).or_default().node = Some(node_view(function));
        }
        for (name, view) in served {
            functions.entry(name).or_default().served = Some(view);
        }
        let named = |(name, view)| FunctionView { name, ..view };
        Self { gpus, functions: functions.into_iter().map(named).collect(), trouble }
    }
}

fn gpu_view(gpu: &admin::Gpu, clients: &[admin::Client]) -> GpuView {
    let mut bytes = BTreeMap::<&str, u64>::new();
    let mut active = Vec::new();
    for client in clients.iter().filter(|client| client.gpu == gpu.index) {
        *bytes.entry(&client.function).or_default() += client.memory_bytes;
        if client.state == "active" {
            active.push(client.function.clone());
        }
    }
    let shares = bytes.into_iter().filter(|&(_, bytes)| bytes > 0);
    let mut shares: Vec<_> = shares.map(|(name, bytes)| Share { function: name.to_owned(), bytes }).collect();
    shares.sort_by_key(|share| std::cmp::Reverse(share.bytes));
    let known: u64 = shares.iter().map(|share| share.bytes).sum();
    GpuView {
        gpu: gpu.index,
        name: gpu.name.clone(),
        state: gpu.state.clone(),
        trouble: gpu.trouble.clone(),
        simulated: gpu.simulated,
        total_bytes: gpu.total_memory_bytes,
        other_bytes: gpu.total_memory_bytes.saturating_sub(gpu.free_memory_bytes).saturating_sub(known),
        free_bytes: gpu.free_memory_bytes,
        shares,
        active,
    }
}

fn node_view(function: &admin::Function) -> NodeView {
    NodeView {
        state: function.state.clone(),
        clients: function.clients,
        gpus: function.gpus.clone(),
        allocated_bytes: function.allocated_bytes,
        resident_bytes: function.resident_bytes,
        requests: function.requests,
        swaps: function.swaps,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_by_function_and_functions_by_both_sides() {
        let client = |function: &str, gpu, memory_bytes, state: &str| admin::Client {
            function: function.to_owned(),
            gpu,
            memory_bytes,
            state: state.to_owned(),
            ..admin::Client::default()
        };
        let gpu =
            admin::Gpu { index: 1, total_memory_bytes: 100, free_memory_bytes: 30, ..admin::Gpu::default() };
        let function =
            |name: &str| admin::Function { name: name.to_owned(), swaps: 3, ..admin::Function::default() };
        let report = NodeReport {
            gpus: vec![gpu],
            clients: vec![
                client("a", 1, 10, "idle"),
                client("b", 1, 40, "active"),
                client("a", 1, 10, "idle"),
                client("c", 1, 0, "idle"),
                client("b", 0, 99, "active"),
            ],
            functions: vec![function("a"), function("z")],
        };
        let served = ServedView { waiting: 2, ..ServedView::default() };
        let overview = Overview::of(
            &report,
            vec![("m".to_owned(), served.clone()), ("a".to_owned(), served)],
            String::new(),
        );
        let [gpu] = &overview.gpus[..] else { panic!("one GPU") };
        let shares: Vec<_> = gpu.shares.iter().map(|share| (share.function.as_str(), share.bytes)).collect();
        assert_eq!(
            (shares, gpu.other_bytes, gpu.active.as_slice()),
            (vec![("b", 40), ("a", 20)], 10, &["b".to_owned()][..])
        );
        let known: Vec<_> = overview
            .functions
            .iter()
            .map(|one| (one.name.as_str(), one.node.is_some(), one.served.is_some()))
            .collect();
        assert_eq!(known, [("a", true, true), ("m", false, true), ("z", true, false)]);
    }
}
