//! `torpor topology`: how the GPUs are connected.

use crate::DirectoryFlag;
use crate::admin::Admin;
use crate::error::CliError;
use crate::table::{print_json, print_table};
use std::process::ExitCode;
use torpor_gpuserver::policy::topology::{Path, Peer, Topology};
use torpor_proto::control::admin::{
    ReportTopologyRequest, ReportTopologyResponse, TopologyGpu, TopologyPeer,
};

const EXAMPLES: &str = "\
HOST is how fast memory comes to a GPU from the host, and the columns behind it how fast from each other GPU when a client moves,
in GB/s: - if it does not, or nobody has measured it yet. GPUs with the same SWITCH have one link to the host together.
--json prints what can be read as the topology of a profile of `torpor simulate`.

Examples:
  torpor topology
  torpor topology --json > topology.json";

/// Show how the GPUs are connected, and how fast memory comes over each path
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ShowTopology {
    #[command(flatten)]
    directory: DirectoryFlag,

    /// Print JSON: the GPUs and the paths between them
    #[arg(long)]
    json: bool,
}

impl ShowTopology {
    /// Shows it.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let server = self.directory.server();
        let answer =
            Admin::connect(&server)?.call(async |api| api.report_topology(ReportTopologyRequest {}).await)?;
        let numbers: Vec<u32> = answer.gpus.iter().map(|gpu| gpu.index).collect();
        let topology = topology(answer);
        if self.json {
            print_json(&topology);
        } else {
            let rows: Vec<_> = (0..numbers.len()).map(|at| cells(&topology, &numbers, at)).collect();
            print_table(["GPU", "PCI", "NUMA", "SWITCH", "NVLINKS", "HOST", "FROM OTHER GPUS"], &rows);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// As the server's answer has it.
pub fn topology(answer: ReportTopologyResponse) -> Topology {
    let gbps = |bytes: Option<u64>| bytes.map(|bytes| (bytes as f64 / 1e8).round() / 10.0);
    let path = |gpu: TopologyGpu| Path {
        host_gbps: gbps(gpu.bytes_per_second),
        switch_gbps: None,
        switch: gpu.switch,
        pci: gpu.pci,
        numa: gpu.numa,
        nvlinks: gpu.nvlinks,
    };
    let peer = |peer: TopologyPeer| Peer {
        from: peer.from as usize,
        to: peer.to as usize,
        gbps: gbps(peer.bytes_per_second),
    };
    Topology {
        gpus: answer.gpus.into_iter().map(path).collect(),
        moving_ms: None,
        peers: answer.peers.into_iter().map(peer).collect(),
    }
}

fn cells(topology: &Topology, numbers: &[u32], at: usize) -> [String; 7] {
    let cell = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let path = topology.gpus.get(at).cloned().unwrap_or_default();
    let peers = topology.peers.iter().filter(|peer| peer.to == at);
    let from = |peer: &Peer| {
        let speed = cell(peer.gbps.map(|gbps| gbps.to_string()));
        numbers.get(peer.from).map(|number| format!("{number}: {speed}"))
    };
    let from: Vec<String> = peers.filter_map(from).collect();
    [
        cell(numbers.get(at).map(u32::to_string)),
        cell(path.pci),
        cell(path.numa.map(|numa| numa.to_string())),
        cell(path.switch.map(|switch| switch.to_string())),
        cell(path.nvlinks.map(|links| links.to_string())),
        cell(path.host_gbps.map(|gbps| gbps.to_string())),
        if from.is_empty() { "-".to_owned() } else { from.join(", ") },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_can_be_read_again() {
        let gpu = |index| TopologyGpu {
            index,
            pci: Some(format!("0000:1{index}:00.0")),
            numa: Some(0),
            switch: None,
            nvlinks: Some(18),
            bytes_per_second: Some(55_230_000_000),
        };
        let peer = TopologyPeer { from: 0, to: 1, bytes_per_second: Some(368_040_000_000) };
        let topology = topology(ReportTopologyResponse { gpus: vec![gpu(4), gpu(5)], peers: vec![peer] });
        let text = serde_json::to_string(&topology).unwrap();
        assert_eq!(serde_json::from_str::<Topology>(&text).unwrap(), topology);
        let rows = [0, 1].map(|at| cells(&topology, &[4, 5], at).join(" "));
        assert_eq!(rows, ["4 0000:14:00.0 0 - 18 55.2 -", "5 0000:15:00.0 0 - 18 55.2 4: 368"]);
    }
}
