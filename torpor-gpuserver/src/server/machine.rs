//! What the machine has.

use std::fs;

/// Memory that processes here can have: the machine's, or less where a control group limits it. A container's own group
/// is the root of what it sees; limits further up are not. Sources: proc_meminfo(5), the kernel's cgroup-v2 documentation.
#[must_use]
pub fn memory_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text)).unwrap_or(0);
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    // "max" is no number: there is no limit.
    group.and_then(|text| text.trim().parse().ok()).map_or(machine, |limit: u64| limit.min(machine))
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       24596664 kB\n"), Some(24_596_664 * 1024));
        assert_eq!(total("MemTotal: many\n"), None);
        assert!(memory_bytes() > 1 << 28);
    }
}
