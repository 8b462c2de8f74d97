//! What a program needs in its environment that sees several devices.

use std::env;

/// NCCL's own switches, with the value that fits Torpor. NCCL 2.28 takes shared memory for every two ranks of one host and then ends
/// when that cannot be registered with the GPU, as it cannot here (docs/design/virtual-gpus.md); without it, it takes sockets.
const FOR_NCCL: [(&str, &str); 1] = [("NCCL_SHM_DISABLE", "1")];

/// Those that the user has not set.
pub fn variables(devices: u32) -> impl Iterator<Item = (&'static str, &'static str)> {
    FOR_NCCL.into_iter().filter(move |(name, _)| devices > 1 && env::var_os(name).is_none())
}
