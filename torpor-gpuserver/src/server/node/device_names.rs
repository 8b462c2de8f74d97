//! The names of a function's devices, where its programs see several: the same in every process, whatever GPU that is on.
//!
//! The first are those of the node's GPUs; a function that sees more devices than there are GPUs has further ones, which are made of
//! them. NCCL refuses two ranks whose places on the bus are the same, and a parent names its children's devices by UUID.

use crate::server::node::Node;
use std::collections::HashSet;
use torpor_proto::command::MOST_DEVICES;
use torpor_proto::control::client::{Device, DeviceName};

/// `CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID`, `_BUS_ID`, `_DEVICE_ID`
const PCI_ATTRIBUTES: [i32; 3] = [50, 33, 34];

/// Devices of one bus (PCI).
const DEVICES_OF_BUS: u32 = 32;

impl Node {
    /// The names of a function's devices; none if its programs see one.
    pub(super) fn device_names(&self, function: &str) -> Vec<DeviceName> {
        let count = self.settings().of(function).gpus;
        if !count.is_several() {
            return Vec::new();
        }
        // As long as this server lives, also if another GPU is known only later.
        let names = self.device_names.get_or_init(|| {
            let known = self.gpus.iter().filter_map(|gpu| gpu.status().device);
            names_of(known.map(|device| name_of(&device)).collect())
        });
        names.iter().take(count.get() as usize).cloned().collect()
    }
}

fn name_of(device: &Device) -> DeviceName {
    let part = |attribute| device.attributes.get(&attribute).map_or(0, |part| part.unsigned_abs());
    let [pci_domain, pci_bus, pci_device] = PCI_ATTRIBUTES.map(part);
    DeviceName { uuid: device.uuid.clone(), pci_domain, pci_bus, pci_device }
}

/// As many as a program may see, of those that there are.
fn names_of(real: Vec<DeviceName>) -> Vec<DeviceName> {
    let place = |name: &DeviceName| (name.pci_domain, name.pci_bus, name.pci_device);
    let (mut places, mut uuids) = (HashSet::new(), HashSet::new());
    let mut names: Vec<DeviceName> = real
        .into_iter()
        .take(MOST_DEVICES as usize)
        .filter(|name| places.insert(place(name)) && uuids.insert(name.uuid.clone()))
        .collect();
    let originals = names.len().max(1);
    while names.len() < MOST_DEVICES as usize {
        let round = names.len() / originals;
        let of = names.get(names.len() % originals).cloned().unwrap_or_default();
        let free =
            (of.pci_device + 1..DEVICES_OF_BUS).map(|pci_device| DeviceName { pci_device, ..of.clone() });
        let free = free.into_iter().find(|name| places.insert(place(name)));
        // A bus of which every place is taken has a neighbour.
        let mut name = free.unwrap_or_else(|| {
            let pci_domain = of.pci_domain ^ u32::try_from(round).unwrap_or(0) << 8;
            DeviceName { pci_domain, ..of.clone() }
        });
        let hash = blake3::hash(&[&of.uuid[..], &[u8::try_from(round).unwrap_or(0)]].concat());
        name.uuid = hash.as_bytes()[..16].to_vec();
        names.push(name);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real(count: u32) -> Vec<DeviceName> {
        let name =
            |at| DeviceName { uuid: vec![at as u8; 16], pci_domain: 0, pci_bus: 4 + at, pci_device: 0 };
        (0..count).map(name).collect()
    }

    #[test]
    fn no_two_devices_have_one_name_and_the_first_have_those_of_the_gpus() {
        for gpus in 0..=9 {
            let (names, real) = (names_of(real(gpus)), real(gpus));
            assert_eq!(names.len(), MOST_DEVICES as usize);
            assert!(names.iter().zip(&real).all(|(name, real)| name == real));
            let uuids: HashSet<_> = names.iter().map(|name| &name.uuid).collect();
            let places: HashSet<_> =
                names.iter().map(|name| (name.pci_domain, name.pci_bus, name.pci_device)).collect();
            assert_eq!((uuids.len(), places.len()), (names.len(), names.len()), "{gpus}: {names:?}");
            assert_eq!(names, names_of(real), "the same every time");
        }
    }

    #[test]
    fn gpus_side_by_side_on_one_bus_keep_their_places() {
        let name = |at: u8| DeviceName {
            uuid: vec![at; 16],
            pci_bus: 4,
            pci_device: at.into(),
            ..Default::default()
        };
        let names = names_of((0..3).map(name).collect());
        let places: Vec<u32> = names.iter().map(|name| name.pci_device).collect();
        assert_eq!(places, [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
