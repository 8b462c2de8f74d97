//! The node server: accepts clients, places them on GPUs, and keeps a worker process running for each GPU.
//!
//! It is control plane alone. It holds no CUDA driver, reads no command, and maps of a client's memory only the
//! channel, to say that it failed, and of the host store's slabs what is to be spilled, brought back or checked. Everything a
//! client does on a GPU goes through shared memory to a worker.
//!
//! ```text
//!  torpor CLI ──admin.sock──▶ admin ────┐
//!  client ──control.sock────▶ entrance ──┼─▶ node ──▶ workers (one task per GPU) ══socket pair══▶ worker process
//!         ──lifeline.sock───▶            │    ├─ clients (addresses, tokens), store (slabs, chunks)
//!                          scheduler ────┘    └─ settings
//! ```
//!
//! All tasks run on the thread that calls [`run()`], as workers die with the thread that started them; but clients are
//! answered on a thread of their own (`entrance::acceptor`).

mod admin;
mod clients;
pub mod entrance;
mod error;
pub mod installation;
pub mod keeper;
pub mod logging;
mod machine;
mod node;
pub mod options;
mod predecessor;
mod priority;
mod probe;
mod realms;
mod run;
mod scheduler;
mod sensors;
pub mod settings;
pub mod size;
mod store;
pub mod time;
mod topology;
mod workers;

pub use error::ServerError;
pub use options::{ServeArgs, ServerOptions, TuningArgs};
pub use probe::probe;
pub use run::{Serving, run};
