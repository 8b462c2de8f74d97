//! Memory that programs had before they registered it, in kernels, of programs that are evicted and moved between their steps.

#[path = "../../torpor-gpuserver/tests/server_support/mod.rs"]
mod server_support;
mod support;
#[path = "support/travels.rs"]
mod travels;

use travels::passes;

#[test]
fn kernels_and_the_program_have_registered_memory_together_wherever_it_begins_and_ends() {
    passes("registered_kernels.py", &[]);
}
