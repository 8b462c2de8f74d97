//! The node server: accepts clients, places them on GPUs, and keeps a worker process running for each GPU.
//!
//! It is control plane alone. It holds no CUDA driver, reads no command, and maps of a client's memory only the
//! channel, to say that it failed, and of the host store's slabs what is to be spilled, brought back or checked. Everything a client does on a GPU goes through shared memory to a worker.
//!
//! ```text
//!  torpor CLI ──admin.sock──▶ admin ─┐
//!  client ──control.sock────▶ control ┼─▶ node ──▶ gpu (one task per GPU) ══socket pair══▶ worker process
//!         ──lifeline.sock───▶ lifeline┘      └─ clients (slots, tokens), store (slabs, chunks)
//! ```
//!
//! All tasks run on the thread that calls [`run()`]: workers die with the thread that started them.

mod admin;
mod clients;
mod control;
mod function;
mod functions;
mod gpu;
pub mod installation;
mod late_binding;
mod lifeline;
pub mod logging;
mod machine;
mod migration;
mod nearest;
mod node;
pub mod options;
mod packet;
mod probe;
mod run;
mod served;
pub mod settings;
pub mod size;
mod store;
pub mod time;
mod tree;
mod usage;
mod worker_process;
mod zmtp;

pub use options::{ServeArgs, ServerOptions, TuningArgs};
pub use probe::probe;
pub use run::{ServerError, Serving, run};
