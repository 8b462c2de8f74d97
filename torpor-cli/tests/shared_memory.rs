//! Programs of several processes that have memory and events together.

#[path = "../../torpor-gpuserver/tests/server_support/mod.rs"]
mod server_support;
mod support;
#[path = "support/travels.rs"]
mod travels;

use travels::{passes, passes_with};

#[test]
fn processes_see_each_other_s_memory_and_wait_for_each_other_s_events() {
    passes_with("shared_memory.py", 2, &["unload f"], &[]);
}

#[test]
fn processes_allocate_for_each_other_from_pools() {
    // Also where two of them have an event together, and no memory.
    passes("shared_pools.py", &[]);
}

#[test]
fn tensors_travel_through_queues_of_pytorch() {
    // Its processes begin on different GPUs.
    passes_with("tensor_queue.py", 2, &[], &[]);
}
