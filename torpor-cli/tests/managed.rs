//! Managed memory, of programs that are evicted and moved between their steps.

#[path = "../../torpor-gpuserver/tests/server_support/mod.rs"]
mod server_support;
mod support;
#[path = "support/travels.rs"]
mod travels;

use travels::passes;

#[test]
fn managed_memory_is_the_same_for_program_and_kernels_wherever_the_rest_is() {
    let log = passes("managed.py", &[]);
    // Its last step takes all that it can get.
    let refused =
        |line: &&str| line.contains("function f wants 8 MiB of page-locked") && line.contains("pinned_limit");
    assert_eq!(log.lines().filter(refused).count(), 1, "{log}");
}
