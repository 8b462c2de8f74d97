//! What a server can be told: the command line's flags, and what they mean.

mod checked;
mod flags;

pub use checked::{OptionsError, ServerOptions};
pub use flags::{DriverChoice, Flags, ServeArgs, TuningArgs};
