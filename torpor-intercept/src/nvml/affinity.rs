//! Processors and memory near the device, which is the server's concern: nothing of this process is nearer than the rest, so it is
//! told all that it may use.

use super::error::{INSUFFICIENT_SIZE, INVALID_ARGUMENT, NOT_SUPPORTED};
use super::{Outcome, device, nvml_functions};
use crate::driver::argument::Out;
use std::ffi::c_void;

/// `NVML_AFFINITY_SCOPE_NODE`, `…_SOCKET`
const SCOPES: std::ops::RangeInclusive<u32> = 0..=1;

/// What proc(5) says in groups of eight digits, the last of which are the first 32.
fn set(status: &str, name: &str) -> Option<Vec<u64>> {
    let listed = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let groups = listed.trim().rsplit(',').map(|group| u32::from_str_radix(group, 16).ok());
    let groups: Vec<u32> = groups.collect::<Option<_>>()?;
    let word = |pair: &[u32]| u64::from(pair[0]) | u64::from(pair.get(1).copied().unwrap_or(0)) << 32;
    Some(groups.chunks(2).map(word).collect())
}

/// Writes a set of this process in so many words.
fn tell(device: *const c_void, name: &str, words: u32, places: Out<u64>) -> Outcome {
    self::device(device)?;
    if words == 0 {
        return Err(INVALID_ARGUMENT);
    }
    let status = std::fs::read_to_string("/proc/self/status").map_err(|_| NOT_SUPPORTED)?;
    let set = set(&status, name).ok_or(NOT_SUPPORTED)?;
    let words = words as usize;
    if set.iter().skip(words).any(|&word| word != 0) {
        return Err(INSUFFICIENT_SIZE);
    }
    let filled = set.into_iter().chain(std::iter::repeat(0)).take(words);
    places.put_all(filled).map_err(|_| INVALID_ARGUMENT)
}

fn tell_within(device: *const c_void, name: &str, words: u32, places: Out<u64>, scope: u32) -> Outcome {
    if SCOPES.contains(&scope) { tell(device, name, words, places) } else { Err(INVALID_ARGUMENT) }
}

nvml_functions! {
    fn nvmlDeviceGetCpuAffinity(device: *const c_void, words: u32, places: Out<u64>) {
        tell(device, "Cpus_allowed", words, places)
    }

    fn nvmlDeviceGetCpuAffinityWithinScope(device: *const c_void, words: u32, places: Out<u64>, scope: u32) {
        tell_within(device, "Cpus_allowed", words, places, scope)
    }

    fn nvmlDeviceGetMemoryAffinity(device: *const c_void, words: u32, places: Out<u64>, scope: u32) {
        tell_within(device, "Mems_allowed", words, places, scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_have_their_first_32_in_the_last_group() {
        let status = "Threads:\t1\nCpus_allowed:\t0000000f,80000000,00000001\nCpus_allowed_list:\t0,63-67\nMems_allowed:\t3\n";
        assert_eq!(set(status, "Cpus_allowed"), Some(vec![1 | 1 << 63, 0xf]));
        assert_eq!(set(status, "Mems_allowed"), Some(vec![3]));
        assert_eq!(set(status, "Groups"), None);
        assert_eq!(set("Mems_allowed:\tx\n", "Mems_allowed"), None);
    }
}
