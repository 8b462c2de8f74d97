//! Programs that manage virtual memory themselves, evicted and moved between their steps.

#[path = "../../torpor-gpuserver/tests/server_support/mod.rs"]
mod server_support;
mod support;
#[path = "support/travels.rs"]
mod travels;

use travels::passes;

#[test]
fn random_mappings_are_as_they_must_be_wherever_the_memory_is() {
    passes("virtual_memory.py", &[]);
}

#[test]
fn more_can_be_reserved_than_there_are_addresses() {
    passes("many_reservations.py", &[]);
}

#[test]
fn expandable_segments_grow_shrink_leave_and_come_back() {
    let settings = [
        ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
        ("PYTORCH_ALLOC_CONF", "expandable_segments:True"),
    ];
    passes("expandable.py", &settings);
}
