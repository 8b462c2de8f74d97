//! What a client sets of a kernel that others launch too: kept per client, and said to the driver with each of its launches.
//!
//! Two settings have no launch attribute: how much dynamic shared memory a launch may use, and whether clusters may be larger
//! than is portable. They only permit something, so the driver is told the most that anybody wants, and each client's launches
//! are checked against its own.
//!
//! Questions about occupancy are the driver's to answer, but never with more than the client's own settings permit.
//!
//! Limit: a carveout counts for launches alone; `cuOccupancyMaxActiveBlocksPerMultiprocessor` answers as without it.

use crate::worker::gpu::images::instance::{MAX_DYNAMIC_SHARED, NON_PORTABLE_CLUSTERS};
use torpor_proto::command::{KERNEL_ATTRIBUTES, LaunchAttribute};
use torpor_proto::control::migration;
use torpor_proto::error::CudaError;

/// `CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES`.
const STATIC_SHARED: u32 = 1;
/// `CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT`: percent, or -1.
const CARVEOUT: u32 = 9;
/// `CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH`; height and depth follow.
const CLUSTER_WIDTH: u32 = 11;
const CLUSTER_DEPTH: u32 = 13;
/// `CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE`.
const CLUSTER_SCHEDULING: u32 = 15;

/// `CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION`.
const LAUNCH_CLUSTER: u32 = 4;
/// `CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE`.
const LAUNCH_CLUSTER_SCHEDULING: u32 = 5;
/// `CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT`.
const LAUNCH_CARVEOUT: u32 = 14;

/// Launch attributes that mean the launch alone (`cuda.h`): ignored, access policy window, cooperative, clusters and their
/// scheduling, programmatic serialization and event, priority, memory domains, preferred cluster, completion event, carveout.
/// Not 3, which is for streams, nor 13, which would give out a handle of the driver's.
const KNOWN_LAUNCH_ATTRIBUTES: [u32; 13] = [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14];

/// Blocks of the largest cluster that every device has. Source: CUDA C++ Programming Guide, thread block clusters.
const PORTABLE_CLUSTER_BLOCKS: u64 = 8;

/// Dynamic shared memory that every launch may use without asking, in bytes. Source: CUDA C++ Programming Guide.
const FREE_DYNAMIC_SHARED: i32 = 48 * 1024;

/// A client's settings of one kernel.
#[derive(Clone, Debug)]
pub(crate) struct KernelSettings {
    /// By attribute; what the client has not set is as the image says.
    values: [Option<i32>; KERNEL_ATTRIBUTES],
    /// Said with each launch that does not say otherwise.
    launch_attributes: Vec<LaunchAttribute>,
    /// Bytes that a launch may use.
    dynamic_shared: i32,
    /// Bytes that each block has anyway.
    static_shared: i32,
    non_portable_clusters: bool,
}

impl KernelSettings {
    /// None yet, of a kernel with these attributes.
    pub(crate) fn new(attributes: &[i32; KERNEL_ATTRIBUTES]) -> Self {
        Self {
            values: [None; KERNEL_ATTRIBUTES],
            launch_attributes: Vec::new(),
            dynamic_shared: attributes[MAX_DYNAMIC_SHARED as usize].max(FREE_DYNAMIC_SHARED),
            static_shared: attributes[STATIC_SHARED as usize],
            non_portable_clusters: attributes[NON_PORTABLE_CLUSTERS as usize] != 0,
        }
    }

    /// Sets a `CUfunction_attribute`.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for one that cannot be set, or not to this.
    pub(crate) fn set(&mut self, attribute: u32, value: i32) -> Result<(), CudaError> {
        let allowed = match attribute {
            CARVEOUT => -1..=100,
            MAX_DYNAMIC_SHARED | CLUSTER_WIDTH..=CLUSTER_DEPTH => 0..=i32::MAX,
            NON_PORTABLE_CLUSTERS => 0..=1,
            CLUSTER_SCHEDULING => 0..=2,
            _ => return Err(CudaError::INVALID_VALUE),
        };
        if !allowed.contains(&value) {
            return Err(CudaError::INVALID_VALUE);
        }
        self.values[attribute as usize] = Some(value);
        match attribute {
            MAX_DYNAMIC_SHARED => self.dynamic_shared = value.max(FREE_DYNAMIC_SHARED),
            NON_PORTABLE_CLUSTERS => self.non_portable_clusters = value != 0,
            _ => self.launch_attributes = self.to_say(),
        }
        Ok(())
    }

    /// What was set, for another worker.
    pub(crate) fn save(&self) -> Vec<migration::KernelSetting> {
        let setting = |(attribute, value): (u32, &Option<i32>)| {
            value.map(|value| migration::KernelSetting { attribute, value })
        };
        (0..).zip(&self.values).filter_map(setting).collect()
    }

    /// The dynamic shared memory that a launch may use, in bytes.
    #[inline]
    pub(crate) fn dynamic_shared(&self) -> i32 {
        self.dynamic_shared
    }

    /// The dynamic shared memory that may be asked for, in bytes, whatever there is room for. Source: `cuda_occupancy.h`, a kernel
    /// that has not asked for more has what is free.
    pub(crate) fn available_shared(&self) -> u64 {
        match self.values[MAX_DYNAMIC_SHARED as usize] {
            Some(_) => u64::MAX,
            None => FREE_DYNAMIC_SHARED.saturating_sub(self.static_shared).max(0).unsigned_abs().into(),
        }
    }

    /// Blocks that a cluster may have at most, if the device has such clusters.
    pub(crate) fn most_cluster_blocks(&self) -> u64 {
        if self.non_portable_clusters { u64::MAX } else { PORTABLE_CLUSTER_BLOCKS }
    }

    /// The launch attributes that the settings stand for.
    #[inline]
    pub(crate) fn launch_attributes(&self) -> &[LaunchAttribute] {
        &self.launch_attributes
    }

    /// Whether a launch may have this attribute.
    ///
    /// # Errors
    /// `CUDA_ERROR_NOT_SUPPORTED` for one that is not known to be harmless, `CUDA_ERROR_INVALID_CLUSTER_SIZE`.
    pub(crate) fn check(&self, attribute: &LaunchAttribute) -> Result<(), CudaError> {
        if !KNOWN_LAUNCH_ATTRIBUTES.contains(&attribute.id) {
            return Err(CudaError::NOT_SUPPORTED);
        }
        if attribute.id == LAUNCH_CLUSTER && !self.non_portable_clusters {
            let [first, second, ..] = attribute.value;
            let blocks = [first & 0xffff_ffff, first >> 32, second & 0xffff_ffff];
            let blocks = blocks.iter().try_fold(1_u64, |product, &extent| product.checked_mul(extent));
            if blocks.is_none_or(|blocks| blocks > PORTABLE_CLUSTER_BLOCKS) {
                return Err(CudaError::INVALID_CLUSTER_SIZE);
            }
        }
        Ok(())
    }

    fn to_say(&self) -> Vec<LaunchAttribute> {
        let value = |attribute: u32| self.values[attribute as usize];
        let say = |id: u32, words: [u64; 2]| {
            let mut attribute = LaunchAttribute { id, ..LaunchAttribute::default() };
            attribute.value[..2].copy_from_slice(&words);
            attribute
        };
        let mut said = Vec::new();
        let cluster: [Option<i32>; 3] = std::array::from_fn(|axis| value(CLUSTER_WIDTH + axis as u32));
        if cluster.iter().any(|extent| extent.is_some_and(|extent| extent > 0)) {
            let [width, height, depth] =
                cluster.map(|extent| u64::from(extent.unwrap_or(1).max(1).cast_unsigned()));
            said.push(say(LAUNCH_CLUSTER, [width | height << 32, depth]));
        }
        if let Some(policy) = value(CLUSTER_SCHEDULING).filter(|&policy| policy > 0) {
            said.push(say(LAUNCH_CLUSTER_SCHEDULING, [u64::from(policy.cast_unsigned()), 0]));
        }
        if let Some(percent) = value(CARVEOUT).filter(|&percent| percent >= 0) {
            said.push(say(LAUNCH_CARVEOUT, [u64::from(percent.cast_unsigned()), 0]));
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_said_with_each_launch() {
        let mut settings = KernelSettings::new(&[0; KERNEL_ATTRIBUTES]);
        assert!(settings.launch_attributes().is_empty());
        for (attribute, value) in [(9, 50), (12, 2), (15, 1), (8, 100_000), (14, 0)] {
            settings.set(attribute, value).unwrap();
        }
        let said = settings.launch_attributes();
        let first_words: Vec<_> = said.iter().map(|said| (said.id, said.value[0], said.value[1])).collect();
        assert_eq!(first_words, [(4, 1 | 2 << 32, 1), (5, 1, 0), (14, 50, 0)]);
        assert_eq!(settings.dynamic_shared(), 100_000);
        let mut elsewhere = KernelSettings::new(&[0; KERNEL_ATTRIBUTES]);
        for setting in settings.save() {
            elsewhere.set(setting.attribute, setting.value).unwrap();
        }
        assert_eq!(elsewhere.launch_attributes(), settings.launch_attributes());
        for (attribute, value) in [(9, -1), (12, 0), (15, 0)] {
            settings.set(attribute, value).unwrap();
        }
        assert!(settings.launch_attributes().is_empty());
        for (attribute, value) in
            [(8, -1), (9, 101), (10, 1), (11, -1), (14, 2), (15, 3), (0, 1), (16, 1), (u32::MAX, 1)]
        {
            assert_eq!(settings.set(attribute, value), Err(CudaError::INVALID_VALUE), "{attribute}");
        }
    }

    #[test]
    fn a_launch_says_only_what_is_known_and_was_allowed() {
        let mut settings = KernelSettings::new(&[0; KERNEL_ATTRIBUTES]);
        let attribute = |id, first| {
            let mut attribute = LaunchAttribute { id, ..LaunchAttribute::default() };
            attribute.value[0] = first;
            attribute.value[1] = 1;
            attribute
        };
        assert_eq!(settings.check(&attribute(4, 4 | 2 << 32)), Ok(()));
        assert_eq!(settings.check(&attribute(4, 8 | 2 << 32)), Err(CudaError::INVALID_CLUSTER_SIZE));
        settings.set(14, 1).unwrap();
        assert_eq!(settings.check(&attribute(4, 8 | 2 << 32)), Ok(()));
        for id in [3, 13, 15, 16, 17, u32::MAX] {
            assert_eq!(settings.check(&attribute(id, 1)), Err(CudaError::NOT_SUPPORTED), "{id}");
        }
    }
}
