//! Topology: over which path memory comes to each GPU, who shares that path, and how fast it is.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Bytes that come to a GPU within a second, where nobody has measured it: PCIe 5 with 16 lanes.
const UNMEASURED_GBPS: f64 = 50.0;

/// Bytes that come from another GPU within a second, where nobody has measured it: PCIe 5 with 16 lanes.
const UNMEASURED_PEER_GBPS: f64 = 50.0;

/// What a move takes beside the way of the memory, where nobody has measured it, in milliseconds.
const UNMEASURED_MOVING_MS: f64 = 20.0;

/// The GPUs of a node and their paths.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// By the server's count.
    pub gpus: Vec<Path>,
    /// What moving a client takes beside the way of its memory, in milliseconds: streams, kernels and page-locked memory are made
    /// anew. Absent if nobody has measured it.
    pub moving_ms: Option<f64>,
    /// GPUs that memory comes to from other ones, over NVLink or PCIe, without the host.
    #[serde(default)]
    pub peers: Vec<Peer>,
}

/// The path from one GPU's memory to another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Whose memory it is, by the server's count.
    pub from: usize,
    /// Where it comes to.
    pub to: usize,
    /// 10⁹ bytes a second; absent if nobody has measured it.
    pub gbps: Option<f64>,
}

/// The path from host memory to a GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Path {
    /// 10⁹ bytes a second, while nobody else loads; absent if nobody has measured it.
    pub host_gbps: Option<f64>,
    /// The same for all GPUs of its switch together, where that is less than the sum.
    pub switch_gbps: Option<f64>,
    /// GPUs with the same number share a link to the host; absent if that is not known.
    pub switch: Option<u32>,
    /// Where it is on the PCIe bus; absent if that is not known.
    #[serde(default)]
    pub pci: Option<String>,
    /// Its node of the host's memory; absent if it has none, or that is not known.
    #[serde(default)]
    pub numa: Option<u32>,
    /// NVLinks that are up; absent if that is not known.
    #[serde(default)]
    pub nvlinks: Option<u32>,
}

impl Topology {
    /// What moving a client takes beside the way of its memory.
    #[must_use]
    pub fn moving(&self) -> Duration {
        Duration::from_secs_f64(self.moving_ms.unwrap_or(UNMEASURED_MOVING_MS).max(0.0) / 1e3)
    }

    /// Whether two GPUs load over the same link.
    #[must_use]
    pub fn share_a_link(&self, one: usize, other: usize) -> bool {
        let switch = |gpu: usize| self.gpus.get(gpu).and_then(|path| path.switch);
        one == other || (switch(one).is_some() && switch(one) == switch(other))
    }

    /// Bytes that come to a GPU within a second from another one; `None` if they come from the host.
    #[must_use]
    pub fn peer_bytes_per_second(&self, from: usize, to: usize) -> Option<f64> {
        let peer = self.peers.iter().find(|peer| (peer.from, peer.to) == (from, to))?;
        Some(1e9 * peer.gbps.unwrap_or(UNMEASURED_PEER_GBPS))
    }

    /// From now on memory comes so from one GPU to another, or not at all.
    pub fn set_peer(&mut self, from: usize, to: usize, gbps: Option<Option<f64>>) {
        self.peers.retain(|peer| (peer.from, peer.to) != (from, to));
        self.peers.extend(gbps.map(|gbps| Peer { from, to, gbps }));
    }

    /// Bytes that come to a GPU within a second while so many GPUs, it among them, load over its link.
    ///
    /// ```
    /// use torpor_gpuserver::policy::topology::{Path, Topology};
    ///
    /// let pair = Path { host_gbps: Some(10.0), switch_gbps: Some(12.0), switch: Some(0), ..Path::default() };
    /// let topology = Topology { gpus: vec![pair.clone(), pair, Path::default()], ..Topology::default() };
    /// assert_eq!([1, 2].map(|loading| topology.bytes_per_second(0, loading)), [10e9, 6e9]);
    /// assert!(topology.share_a_link(0, 1) && !topology.share_a_link(1, 2));
    /// ```
    #[must_use]
    pub fn bytes_per_second(&self, gpu: usize, loading: usize) -> f64 {
        let path = self.gpus.get(gpu);
        let alone = path.and_then(|path| path.host_gbps).unwrap_or(UNMEASURED_GBPS);
        let shared = path.and_then(|path| path.switch_gbps).map_or(alone, |all| all / loading.max(1) as f64);
        1e9 * alone.min(shared)
    }
}
