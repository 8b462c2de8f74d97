//! Values as they are written, in the settings file or after a flag.

use crate::policy::eviction::Eviction;
use crate::policy::placement::Placement;
use crate::policy::sharing::ActiveLimit;
use crate::server::settings::choice::Policy;
use crate::server::size::ByteSize;
use crate::server::time::Time;
use crate::swap_mode::SwapMode;
use clap::ValueEnum;
use std::ffi::{OsStr, OsString};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

/// A value that can be read again from what is written.
pub trait Written {
    /// As it is written.
    fn written(&self) -> OsString;
}

macro_rules! written_as_shown {
    ($($Type:ty),+) => {$(
        impl Written for $Type {
            fn written(&self) -> OsString {
                self.to_string().into()
            }
        }
    )+};
}

macro_rules! written_as_named {
    ($($Type:ty),+) => {$(
        impl Written for $Type {
            fn written(&self) -> OsString {
                self.to_possible_value().map(|value| value.get_name().into()).unwrap_or_default()
            }
        }
    )+};
}

written_as_shown!(bool, u32, String, NonZeroU32, NonZeroUsize, Time, ActiveLimit);
written_as_named!(Eviction, Placement, Policy, SwapMode);

impl Written for ByteSize {
    fn written(&self) -> OsString {
        let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let whole = units.into_iter().find(|&(bytes, _)| self.0 != 0 && self.0.is_multiple_of(bytes));
        let (bytes, unit) = whole.unwrap_or((1, "B"));
        format!("{}{unit}", self.0 / bytes).into()
    }
}

impl Written for PathBuf {
    fn written(&self) -> OsString {
        self.into()
    }
}

impl<T: Written> Written for Vec<T> {
    fn written(&self) -> OsString {
        self.iter().map(Written::written).collect::<Vec<_>>().join(OsStr::new(","))
    }
}
