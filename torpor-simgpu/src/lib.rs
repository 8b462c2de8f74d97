//! A simulated GPU behind the functions of the CUDA driver.
//!
//! The shared library built from this crate stands in for libcuda.so.1: Torpor's worker loads it by path and calls the
//! same functions as on real hardware. It has devices with memory, streams whose work is asynchronous, events, modules,
//! graphs, and runs kernels that come as PTX on the CPU ([`ptx`]). How many devices there are, what they are like, how long
//! their work takes and what goes wrong is said by environment variables, read at the first `cuInit`
//! (`docs/simulated-gpu.md` in the repository).
//!
//! One file for each family of CUDA functions, with the family's name. The C surface itself is one table in [`exports`];
//! every function there goes through `entry`, which counts it, applies faults, and lets no panic out.
//!
//! Contract: functions keep the ABI of cuda.h 13.0 and may be called from any thread. Limits: one process, kernels as
//! PTX only (a cubin's are known by name, but refused at launch), no managed memory (managed variables are in device
//! memory), no IPC.

pub mod abi;
mod array;
mod attributes;
mod capture;
mod check;
mod clock;
mod code;
mod compile;
mod config;
mod context;
mod device;
mod engine;
mod entry;
mod error;
mod event;
pub mod exports;
mod fault;
mod function;
mod graph;
mod green;
mod handle;
mod launch;
mod library;
mod log;
mod machine;
mod memory;
mod module;
mod nvml;
mod object;
mod occupancy;
mod operation;
mod printed;
mod profile;
pub mod ptx;
mod sample;
mod stream;
mod tensor_map;
mod texture;

/// Locks a mutex whose data is sound even if a holder panicked: no caller leaves it half changed.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
