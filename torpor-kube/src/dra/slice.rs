//! What a node offers: its GPUs, each for any number of claims, as long as their memory together fits the host.
//!
//! A device says how much there is, not where a function runs: the node server places and moves functions by itself.

use crate::dra::DRIVER;
use crate::dra::claim::MEMORY;
use crate::dra::quantity::quantity;
use crate::health::{Gpu, Health};
use crate::protocol::v1::{DeviceHealth, DeviceIdentifier, HealthStatus};
use k8s_openapi::api::resource::v1::{
    CapacityRequestPolicy, CapacityRequestPolicyRange, Device, DeviceAttribute, DeviceCapacity, ResourcePool,
    ResourceSlice, ResourceSliceSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// What memory is given out in. Source: a segment of the node server.
const GRANULE_BYTES: u64 = 2 << 20;

/// Most devices of a slice. Source: `ResourceSliceMaxDevices` of resource.k8s.io.
const MOST_DEVICES: u32 = 128;

/// Longest text of an attribute. Source: `DeviceAttributeMaxValueLength`.
const MOST_CHARACTERS: usize = 64;

/// Longest message of a device's health. Source: dra-health.
const MOST_MESSAGE: usize = 1000;

/// What a node offers.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The node: also the name of the pool of its devices.
    pub node: String,
    /// Memory of each GPU that claims can have together, in bytes, if not what the host has room for.
    pub memory_per_gpu: Option<u64>,
    /// Memory of a claim that asks for none, in bytes.
    pub default_memory: u64,
    /// Devices for each GPU, each for one claim; else one for any number.
    pub shares: Option<u32>,
}

impl Offer {
    /// The name of what is published.
    #[must_use]
    pub fn slice_name(&self) -> String {
        format!("{}-{DRIVER}", self.node)
    }

    /// The devices of GPUs that can serve. Others are left out, so that the scheduler gives them to nobody.
    #[must_use]
    pub fn devices(&self, health: &Health) -> Vec<Device> {
        let serving = health.gpus.iter().filter(|gpu| gpu.trouble.is_none());
        serving.flat_map(|gpu| self.devices_of(gpu, health)).collect()
    }

    /// The devices' health, those of GPUs that cannot serve included: pods have them.
    #[must_use]
    pub fn health(&self, health: &Health) -> Vec<DeviceHealth> {
        // A clock before 1970 is no time at all.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let devices = health
            .gpus
            .iter()
            .flat_map(|gpu| self.names(gpu, health).into_iter().map(move |name| (gpu, name)));
        let health = |(gpu, device_name): (&Gpu, String)| DeviceHealth {
            device: Some(DeviceIdentifier { pool_name: self.node.clone(), device_name }),
            health: if gpu.trouble.is_none() { HealthStatus::Healthy } else { HealthStatus::Unhealthy }
                .into(),
            last_updated_time: i64::try_from(now).unwrap_or(i64::MAX),
            health_check_timeout_seconds: 0,
            message: gpu.trouble.iter().flat_map(|trouble| trouble.chars()).take(MOST_MESSAGE).collect(),
        };
        devices.map(health).collect()
    }

    /// What is published.
    #[must_use]
    pub fn slice(&self, devices: Vec<Device>, generation: i64, owner: OwnerReference) -> ResourceSlice {
        ResourceSlice {
            metadata: ObjectMeta {
                name: Some(self.slice_name()),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            spec: ResourceSliceSpec {
                driver: DRIVER.to_owned(),
                node_name: Some(self.node.clone()),
                pool: ResourcePool { name: self.node.clone(), generation, resource_slice_count: 1 },
                devices: Some(devices),
                ..ResourceSliceSpec::default()
            },
        }
    }

    /// Devices for each GPU: no more than a slice has room for.
    fn shares(&self, health: &Health) -> Option<u32> {
        let gpus = u32::try_from(health.gpus.len()).unwrap_or(u32::MAX).max(1);
        self.shares.map(|shares| shares.min(MOST_DEVICES / gpus).max(1))
    }

    fn names(&self, gpu: &Gpu, health: &Health) -> Vec<String> {
        let whole = format!("gpu-{}", gpu.index);
        match self.shares(health) {
            None => vec![whole],
            Some(shares) => (0..shares).map(|share| format!("{whole}-share-{share}")).collect(),
        }
    }

    fn devices_of(&self, gpu: &Gpu, health: &Health) -> Vec<Device> {
        let gpus = u64::try_from(health.gpus.len()).unwrap_or(u64::MAX).max(1);
        let memory = self.memory_per_gpu.unwrap_or_else(|| gpu.memory_bytes.max(health.pool_bytes / gpus));
        let shares = self.shares(health);
        let memory = whole(memory / u64::from(shares.unwrap_or(1)));
        let most = whole(gpu.memory_bytes).min(memory);
        let policy = CapacityRequestPolicy {
            default: Some(quantity(whole(self.default_memory).min(most))),
            valid_range: Some(CapacityRequestPolicyRange {
                min: quantity(GRANULE_BYTES),
                max: Some(quantity(most)),
                step: None,
            }),
            valid_values: None,
        };
        let capacity =
            DeviceCapacity { value: quantity(memory), request_policy: shares.is_none().then_some(policy) };
        let text = |text: &str| DeviceAttribute {
            string: Some(text.chars().take(MOST_CHARACTERS).collect()),
            ..DeviceAttribute::default()
        };
        let attributes = BTreeMap::from([
            ("productName".to_owned(), text(&gpu.product)),
            (
                "index".to_owned(),
                DeviceAttribute { int: Some(gpu.index.into()), ..DeviceAttribute::default() },
            ),
            (
                "simulated".to_owned(),
                DeviceAttribute { bool: Some(gpu.simulated), ..DeviceAttribute::default() },
            ),
        ]);
        let device = |name| Device {
            name,
            attributes: Some(attributes.clone()),
            capacity: Some(BTreeMap::from([(MEMORY.to_owned(), capacity.clone())])),
            allow_multiple_allocations: shares.is_none().then_some(true),
            ..Device::default()
        };
        self.names(gpu, health).into_iter().map(device).collect()
    }
}

/// Memory in whole granules, and at least one.
fn whole(bytes: u64) -> u64 {
    (bytes / GRANULE_BYTES).max(1) * GRANULE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn offer(shares: Option<u32>) -> Offer {
        Offer { node: "node-1".to_owned(), memory_per_gpu: None, default_memory: 2 * GIB, shares }
    }

    fn health(gpus: &[Option<&str>]) -> Health {
        let gpu = |(index, trouble): (usize, &Option<&str>)| Gpu {
            index: u32::try_from(index).unwrap(),
            product: "H".repeat(70),
            memory_bytes: 80 * GIB + 5,
            simulated: false,
            trouble: trouble.map(str::to_owned),
        };
        Health { gpus: gpus.iter().enumerate().map(gpu).collect(), pool_bytes: 1024 * GIB, silence: None }
    }

    fn memory(device: &Device) -> DeviceCapacity {
        device.capacity.as_ref().unwrap()[MEMORY].clone()
    }

    #[test]
    fn claims_share_a_gpu_as_far_as_the_host_has_memory_and_none_gets_more_than_a_gpu() {
        let devices = offer(None).devices(&health(&[None, None]));
        assert_eq!(devices.iter().map(|device| &*device.name).collect::<Vec<_>>(), ["gpu-0", "gpu-1"]);
        let capacity = memory(&devices[0]);
        assert_eq!(capacity.value.0, "512Gi", "half of the pool");
        let policy = capacity.request_policy.unwrap();
        let range = policy.valid_range.unwrap();
        assert_eq!(
            (policy.default.unwrap().0, range.min.0, range.max.unwrap().0),
            ("2Gi".into(), "2Mi".into(), "80Gi".into())
        );
        assert_eq!(devices[0].allow_multiple_allocations, Some(true));
        let few = Offer { memory_per_gpu: Some(GIB), ..offer(None) };
        let policy = memory(&few.devices(&health(&[None]))[0]).request_policy.unwrap();
        assert_eq!(policy.default.unwrap().0, "1Gi", "the default is within the range");
    }

    #[test]
    fn shares_have_a_part_each_and_fit_into_a_slice() {
        let devices = offer(Some(4)).devices(&health(&[None, None]));
        assert_eq!(devices.len(), 8);
        assert_eq!((&*devices[7].name, memory(&devices[7]).value.0), ("gpu-1-share-3", "128Gi".into()));
        assert!(
            devices[7].allow_multiple_allocations.is_none() && memory(&devices[7]).request_policy.is_none()
        );
        assert_eq!(offer(Some(128)).devices(&health(&[None; 8])).len(), 128);
    }

    #[test]
    fn a_gpu_that_cannot_serve_is_offered_to_nobody_and_unhealthy_for_those_who_have_it() {
        let health = health(&[None, Some("it is unresponsive")]);
        let names: Vec<_> = offer(None).devices(&health).into_iter().map(|device| device.name).collect();
        assert_eq!(names, ["gpu-0"]);
        let told = offer(None).health(&health);
        let state = |at: usize| (told[at].health(), &*told[at].message);
        assert_eq!(state(0), (HealthStatus::Healthy, ""));
        assert_eq!(state(1), (HealthStatus::Unhealthy, "it is unresponsive"));
        let device = told[1].device.clone().unwrap();
        assert_eq!((&*device.pool_name, &*device.device_name), ("node-1", "gpu-1"));
    }

    #[test]
    fn texts_are_no_longer_than_they_may_be() {
        let device = &offer(None).devices(&health(&[None]))[0];
        let product = &device.attributes.as_ref().unwrap()["productName"];
        assert_eq!(product.string.as_ref().unwrap().len(), MOST_CHARACTERS);
    }
}
