//! The preloaded library: it *is* `libcuda.so.1` for the process it lives in.
//!
//! Two layers. [`driver`] and [`runtime`] are surfaces: the C functions of the CUDA driver API, and of the CUDA runtime
//! API that PyTorch calls itself; thin adapters, one file per family. [`cupti`] is a third, for profilers in the program.
//! [`core`] is what they mean: contexts, streams, events, images, kernels and memory as Rust types, which answer what
//! is local and turn the rest into the commands of `torpor_proto::command`.
//!
//! The library is a guest in somebody else's program. It takes no signal handler, changes the environment of nothing but new
//! programs (`children`), prints nothing of its own unless `TORPOR_SHIM_LOG` asks for it, lets no panic out, and starts no thread but those that help to copy
//! (`core::copiers`) and those that call the program's functions in the order of streams (`core::host_function`).

mod calls;
pub mod children;
mod compile_cache;
pub mod core;
pub mod cupti;
pub mod driver;
mod log;
pub mod nvml;
pub mod nvrtc;
#[allow(
    non_snake_case,
    reason = "the names are those of cuda_runtime_api.h, and these functions are not the exported ones"
)]
pub mod runtime;
mod told;
