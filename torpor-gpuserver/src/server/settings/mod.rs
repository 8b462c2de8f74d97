//! The settings of a node and its functions: a TOML file, read at the start and again whenever it changes.
//!
//! A file with an error changes nothing: at the start the server does not serve, later it keeps the settings it has. What
//! `[functions]` and `[defaults]` say takes effect at once, and only on functions for which it is different; `[memory]`
//! and `[scheduler]` are read at the start alone.

mod choice;
mod clients;
mod container;
pub(in crate::server) mod declare;
mod devices;
mod file;
mod function;
mod function_section;
mod live;
mod lowered;
mod read;
mod reload;
mod sections;
mod server_section;
mod terms;
mod text;
mod watch;
pub(in crate::server) mod written;

pub use choice::{Isolation, Policy, Writeback};
pub(super) use clients::{
    image_limit_bytes, may_be_on, memory_limit_bytes, memory_limit_bytes_anywhere, memory_limit_bytes_on,
    settings_of, tell_worker, tell_workers,
};
pub use container::Cpus;
pub use devices::{DeviceCount, InvalidDeviceCount};
pub use file::{FileError, SettingsFile};
pub use function::{FunctionSettings, LimitAboveGpu, Settings};
pub use function_section::FunctionSection;
pub(super) use live::{Live, Pin};
pub use sections::{MemorySection, SchedulerSection};
pub use server_section::ServerSection;
pub(super) use terms::{Terms, TermsError, agree, recall};
pub use text::{FunctionName, Percentile, device_memory};
pub use watch::Stamp;
pub(super) use watch::watch;
