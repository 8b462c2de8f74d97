//! The settings of a node and its functions: a TOML file, read at the start and again whenever it changes.
//!
//! A file with an error changes nothing: at the start the server does not serve, later it keeps the settings it has. What
//! `[functions]` and `[defaults]` say takes effect at once, and only on functions for which it is different; `[memory]`
//! and `[scheduler]` are read at the start alone.

mod clients;
mod file;
mod function;
mod live;
mod reload;
mod text;
mod watch;

pub(super) use clients::{may_be_on, memory_limit_bytes, settings_of, tell_workers};
pub use file::{FileError, FunctionSection, MemorySection, SchedulerSection, SettingsFile, Writeback};
pub use function::{FunctionSettings, LimitAboveGpu, Settings};
pub(super) use live::{Live, Pin};
pub use text::{FunctionName, PerGpu, device_memory};
pub use watch::Stamp;
pub(super) use watch::watch;
