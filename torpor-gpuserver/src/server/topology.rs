//! How the node's GPUs are connected, as the system, NVML and the workers say.

use crate::server::node::Node;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use torpor_proto::control::admin::{ReportTopologyResponse, TopologyGpu, TopologyPeer};
use torpor_proto::control::client::Device;

/// `CU_DEVICE_ATTRIBUTE_PCI_BUS_ID`, `_PCI_DEVICE_ID` and `_PCI_DOMAIN_ID`.
const PCI: [i32; 3] = [50, 33, 34];

/// Where the system says what it knows of devices.
const DEVICES: &str = "/sys/bus/pci/devices";

/// What is known now.
pub(super) async fn report(node: &Node) -> ReportTopologyResponse {
    let (mut gpus, mut ports) = (Vec::new(), BTreeMap::new());
    for (at, gpu) in node.gpus().iter().enumerate() {
        let device = gpu.status().device.unwrap_or_default();
        let pci = pci(&device);
        // A simulated GPU has an address where another device may be.
        let folder = pci.as_deref().filter(|_| !node.simulated()).map(|pci| Path::new(DEVICES).join(pci));
        let next = u32::try_from(ports.len()).unwrap_or(u32::MAX);
        let switch = folder.as_deref().and_then(root_port).map(|port| *ports.entry(port).or_insert(next));
        gpus.push(TopologyGpu {
            index: gpu.index,
            pci,
            numa: folder.as_deref().and_then(numa),
            switch,
            nvlinks: node.nvlinks(device.uuid.clone()).await,
            bytes_per_second: gpu.peers().host_speed(at),
        });
    }
    let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    let peer =
        |(from, to, bytes_per_second)| TopologyPeer { from: place(from), to: place(to), bytes_per_second };
    let peers = node.gpus().first().map(|gpu| gpu.peers().open()).unwrap_or_default();
    ReportTopologyResponse { gpus, peers: peers.into_iter().map(peer).collect() }
}

/// As the system names it.
fn pci(device: &Device) -> Option<String> {
    let [domain, bus, slot] = PCI.map(|attribute| device.attributes.get(&attribute));
    Some(format!("{:04x}:{:02x}:{:02x}.0", domain?, bus?, slot?))
}

/// What a device is behind that has a link to the host of its own.
fn root_port(folder: &Path) -> Option<PathBuf> {
    let whole = std::fs::canonicalize(folder).ok()?;
    let is_root =
        |part: &Path| part.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pci"));
    whole.ancestors().find(|part| part.parent().is_some_and(is_root)).map(Path::to_owned)
}

fn numa(folder: &Path) -> Option<u32> {
    std::fs::read_to_string(folder.join("numa_node")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_behind_one_port_share_their_link() {
        let system = tempfile::tempdir().unwrap();
        let port = system.path().join("pci0000:15/0000:15:01.0");
        let paths = ["0000:16:00.0/0000:17:00.0/0000:18:00.0", "0000:16:00.0/0000:17:01.0/0000:19:00.0"];
        let folders = paths.map(|path| port.join(path));
        folders.iter().for_each(|folder| std::fs::create_dir_all(folder).unwrap());
        std::fs::write(folders[0].join("numa_node"), "1\n").unwrap();
        std::fs::write(folders[1].join("numa_node"), "-1\n").unwrap();
        let port = std::fs::canonicalize(port).unwrap();
        assert_eq!(folders.each_ref().map(|folder| root_port(folder)), [Some(port.clone()), Some(port)]);
        assert_eq!(folders.each_ref().map(|folder| numa(folder)), [Some(1), None]);
        assert_eq!(root_port(Path::new("/nonexistent")), None);
    }

    #[test]
    fn a_device_has_the_address_that_its_driver_says() {
        let attributes = [(50, 0), (33, 0x1b), (34, 0)].into_iter().collect();
        assert_eq!(pci(&Device { attributes, ..Device::default() }).as_deref(), Some("0000:1b:00.0"));
        assert_eq!(pci(&Device::default()), None);
    }
}
