//! Where the router itself is: on the host, or in a container of the engine that it asks. In a container its paths are not the
//! host's, and the host's loopback interface is not its own.

use bollard::models::ContainerInspectResponse;
use std::path::{Path, PathBuf};

/// Networks that containers do not share.
const NO_NETWORKS: [&str; 2] = ["host", "none"];

/// The engine's own network, in which all containers are that name none.
const DEFAULT_NETWORK: &str = "bridge";

/// Files that engines mount into each container, from a folder that is named for it.
const MOUNTED_BY_ENGINES: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// Digits of a container's number.
const ID_DIGITS: usize = 64;

/// Where the router is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the host.
    Host,
    /// In a container.
    Container {
        /// The network in which others reach it; none if it has the host's.
        network: Option<String>,
        /// What of the host it has mounted: where it sees it, and where that is on the host.
        mounts: Vec<(PathBuf, PathBuf)>,
    },
}

impl Place {
    /// In a container that the engine describes.
    #[must_use]
    pub fn in_container(container: ContainerInspectResponse) -> Self {
        let networks = container.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        let mut networks: Vec<_> =
            networks.into_keys().filter(|name| !NO_NETWORKS.contains(&name.as_str())).collect();
        networks.sort_by_key(|name| (name == DEFAULT_NETWORK, name.clone()));
        let mounts = container.mounts.unwrap_or_default().into_iter();
        let mut mounts: Vec<(PathBuf, PathBuf)> =
            mounts.filter_map(|mount| Some((mount.destination?.into(), mount.source?.into()))).collect();
        // Of mounts in mounts, the inner one is what is seen.
        mounts.sort_by_key(|(seen, _)| std::cmp::Reverse(seen.components().count()));
        Self::Container { network: networks.into_iter().next(), mounts }
    }

    /// Where a path of the router is on the host; none if it is in the router's container alone.
    #[must_use]
    pub fn on_host(&self, path: &Path) -> Option<PathBuf> {
        match self {
            Self::Host => Some(path.to_owned()),
            Self::Container { mounts, .. } => mounts.iter().find_map(|(seen, there)| {
                let inside = path.strip_prefix(seen).ok()?;
                // `join("")` would add a slash, and a file has none.
                Some(if inside.as_os_str().is_empty() { there.clone() } else { there.join(inside) })
            }),
        }
    }

    /// The network in which the router reaches other containers; none if it reaches what the host does.
    #[must_use]
    pub fn network(&self) -> Option<&str> {
        match self {
            Self::Host => None,
            Self::Container { network, .. } => network.as_deref(),
        }
    }
}

/// The number of the container that a process is in, by its `/proc/self/mountinfo`. Whether the engine that is asked knows it is
/// another question: it may be a container of another engine.
#[must_use]
pub fn container_id(mountinfo: &str) -> Option<&str> {
    mountinfo.lines().find_map(|line| {
        // Number, parent, device, what is mounted, and where. Source: proc(5).
        let mut fields = line.split(' ').skip(3);
        let (what, seen) = (fields.next()?, fields.next()?);
        let is_id =
            |part: &&str| part.len() == ID_DIGITS && part.bytes().all(|digit| digit.is_ascii_hexdigit());
        if MOUNTED_BY_ENGINES.contains(&seen) { what.split('/').find(is_id) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::{EndpointSettings, MountPoint, NetworkSettings};
    use proptest::prelude::*;

    fn container(networks: &[&str], mounts: &[(&str, &str)]) -> ContainerInspectResponse {
        let network = |name: &&str| ((*name).to_owned(), EndpointSettings::default());
        let mount = |&(seen, there): &(&str, &str)| MountPoint {
            destination: Some(seen.to_owned()),
            source: Some(there.to_owned()),
            ..MountPoint::default()
        };
        ContainerInspectResponse {
            network_settings: Some(NetworkSettings {
                networks: Some(networks.iter().map(network).collect()),
                ..NetworkSettings::default()
            }),
            mounts: Some(mounts.iter().map(mount).collect()),
            ..ContainerInspectResponse::default()
        }
    }

    #[test]
    fn paths_in_a_container_are_the_host_s_where_they_are_mounted() {
        let mounts = [
            ("/run/torpor", "/srv/node"),
            ("/run/torpor/containers", "/var/lib/torpor"),
            ("/f", "/one.toml"),
        ];
        let place = Place::in_container(container(&["node_default"], &mounts));
        let on_host = |path: &str| place.on_host(Path::new(path));
        assert_eq!(on_host("/run/torpor/functions/f"), Some("/srv/node/functions/f".into()));
        assert_eq!(on_host("/run/torpor/containers/x.so"), Some("/var/lib/torpor/x.so".into()));
        assert_eq!(on_host("/f").unwrap().as_os_str(), "/one.toml");
        assert_eq!(on_host("/run/torporous"), None);
        assert_eq!(on_host("/opt/torpor/lib"), None);
        assert_eq!(Place::Host.on_host(Path::new("/opt")), Some("/opt".into()));
    }

    #[test]
    fn the_network_is_one_in_which_containers_reach_each_other() {
        let network =
            |names: &[&str]| Place::in_container(container(names, &[])).network().map(str::to_owned);
        assert_eq!(network(&["bridge", "node_b", "node_a"]), Some("node_a".to_owned()));
        assert_eq!(network(&["bridge"]), Some("bridge".to_owned()));
        assert_eq!(network(&["host"]), None, "the host's loopback interface is the router's, too");
        assert_eq!(Place::Host.network(), None);
    }

    #[test]
    fn a_process_finds_the_number_of_its_container() {
        let id = "0123456789abcdef".repeat(4);
        let docker = format!(
            "1 2 8:1 / / rw - overlay o rw\n3 1 8:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw - ext4 /dev/sda1 rw\n"
        );
        assert_eq!(container_id(&docker), Some(id.as_str()));
        let podman = format!(
            "3 1 0:25 /containers/overlay-containers/{id}/userdata/hosts /etc/hosts rw - tmpfs t rw\n"
        );
        assert_eq!(container_id(&podman), Some(id.as_str()));
        let host = format!("1 2 8:1 / / rw - ext4 /dev/sda1 rw\n4 1 8:1 /{id} /mnt rw - ext4 /dev/sda1 rw\n");
        assert_eq!(container_id(&host), None);
    }

    proptest! {
        #[test]
        fn no_mountinfo_panics(text in "(?s).*") {
            let _ = container_id(&text);
        }
    }
}
