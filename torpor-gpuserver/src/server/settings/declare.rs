//! What a declaration of settings yields: keys of the file, flags, what holds if neither is given, and what they are as texts.

use crate::server::settings::written::Written;
use std::ffi::OsString;

/// A setting, as its declaration and those who give it say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key, and with dashes its flag.
    pub name: &'static str,
    /// Where it is given.
    pub kind: Kind,
    /// What holds if it is not given, as it would be written or in words.
    pub default: String,
    /// As it is given, if it is.
    pub given: Option<OsString>,
}

/// Where a setting is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By a flag, and in the file if it is of a section; at the start alone.
    Flag,
    /// By a flag, and in the file, whenever that changes and no flag is given.
    FollowedFlag,
    /// In the file, at the start alone.
    Key,
    /// In the file, whenever that changes.
    Followed,
}

impl Kind {
    /// Whether there is a flag.
    #[must_use]
    pub fn is_flag(self) -> bool {
        matches!(self, Self::Flag | Self::FollowedFlag)
    }

    /// Whether it takes effect when the file changes.
    #[must_use]
    pub fn is_followed(self) -> bool {
        matches!(self, Self::FollowedFlag | Self::Followed)
    }
}

/// The flags that are given, as a command line.
#[must_use]
pub fn arguments(settings: Vec<Setting>) -> Vec<OsString> {
    let given = settings.into_iter().filter(|setting| setting.kind.is_flag());
    given.filter_map(|setting| Some([flag(setting.name).into(), setting.given?])).flatten().collect()
}

/// The keys that are another now, though they are read at the start alone.
pub fn restart_needed(running: Vec<Setting>, now: Vec<Setting>) -> impl Iterator<Item = &'static str> {
    let pairs = running.into_iter().zip(now).filter(|(old, _)| !old.kind.is_followed());
    pairs.filter(|(old, new)| old.given != new.given).map(|(old, _)| old.name)
}

/// The flag of a name.
#[must_use]
pub fn flag(name: &str) -> String {
    format!("--{}", name.replace('_', "-"))
}

/// What `--help` says of a flag.
#[must_use]
pub fn help(lines: &[&str], default: &str) -> String {
    let text: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    format!("{} [default: {default}]", text.join(" "))
}

/// A value as it is written.
#[must_use]
pub fn text(value: &impl Written) -> String {
    value.written().to_string_lossy().into_owned()
}

/// Declares settings: of a section of the file, if the type is to be read from it, or flags alone.
///
/// `flags` are flags, and keys where there is a section; their `#[arg]` is clap's, and their first lines are their help. `keys` are
/// keys alone. The file is followed for those that are `followed`, with a flag or without. Behind the type stands what holds if
/// nothing is given: as a value, which the method of the same name returns then, or in words.
macro_rules! settings {
    (
        $(#[$about:meta])*
        pub struct $Settings:ident;
        flags {$(
            $(#[doc = $flag_doc:literal])+
            $(#[arg($($flag_arg:tt)*)])?
            $(#[serde($($flag_serde:tt)*)])?
            $flag:ident: $Flag:ty $(= $flag_default:expr)? $(, $flag_words:literal)?;
        )*}
        $(followed_flags {$(
            $(#[doc = $both_doc:literal])+
            $both:ident: $Both:ty $(= $both_default:expr)? $(, $both_words:literal)?;
        )*})?
        $(keys {$(
            $(#[doc = $key_doc:literal])+
            $(#[serde($($key_serde:tt)*)])?
            $key:ident: $Key:ty $(= $key_default:expr)? $(, $key_words:literal)?;
        )*})?
        $(followed {$(
            $(#[doc = $followed_doc:literal])+
            $followed:ident: $Followed:ty $(= $followed_default:expr)? $(, $followed_words:literal)?;
        )*})?
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
        pub struct $Settings {
            $(
                $(#[doc = $flag_doc])+
                #[arg(long, help = help(&[$($flag_doc),+], &default!($Flag $(= $flag_default)? $(, $flag_words)?)))]
                $(#[arg($($flag_arg)*)])?
                $(#[serde($($flag_serde)*)])?
                pub $flag: Option<$Flag>,
            )*
            $($(
                $(#[doc = $both_doc])+
                #[arg(long, help = help(&[$($both_doc),+], &default!($Both $(= $both_default)? $(, $both_words)?)))]
                pub $both: Option<$Both>,
            )*)?
            $($(
                $(#[doc = $key_doc])+
                #[arg(skip)]
                $(#[serde($($key_serde)*)])?
                pub $key: Option<$Key>,
            )*)?
            $($(
                $(#[doc = $followed_doc])+
                #[arg(skip)]
                pub $followed: Option<$Followed>,
            )*)?
        }

        impl $Settings {
            /// What is given here, and for the rest what is given there.
            #[must_use]
            pub fn or(self, others: Self) -> Self {
                Self {
                    $($flag: self.$flag.or(others.$flag),)*
                    $($($both: self.$both.or(others.$both),)*)?
                    $($($key: self.$key.or(others.$key),)*)?
                    $($($followed: self.$followed.or(others.$followed),)*)?
                }
            }

            /// Each by itself, always in the same order.
            #[must_use]
            pub fn settings(&self) -> Vec<Setting> {
                vec![
                    $(setting!(self Flag $flag: $Flag $(= $flag_default)? $(, $flag_words)?),)*
                    $($(setting!(self FollowedFlag $both: $Both $(= $both_default)? $(, $both_words)?),)*)?
                    $($(setting!(self Key $key: $Key $(= $key_default)? $(, $key_words)?),)*)?
                    $($(setting!(self Followed $followed: $Followed $(= $followed_default)? $(, $followed_words)?),)*)?
                ]
            }

            $(what_holds!($flag: $Flag $(= $flag_default)?);)*
            $($(what_holds!($both: $Both $(= $both_default)?);)*)?
            $($(what_holds!($key: $Key $(= $key_default)?);)*)?
            $($(what_holds!($followed: $Followed $(= $followed_default)?);)*)?
        }
    };
}

macro_rules! default {
    ($Type:ty = $default:expr) => {{
        let value: $Type = $default;
        text(&value)
    }};
    ($Type:ty, $words:literal) => {
        String::from($words)
    };
}

macro_rules! setting {
    ($self:ident $Kind:ident $name:ident: $($type_and_default:tt)+) => {
        Setting {
            name: stringify!($name),
            kind: Kind::$Kind,
            default: default!($($type_and_default)+),
            given: $self.$name.as_ref().map(Written::written),
        }
    };
}

macro_rules! what_holds {
    ($name:ident: $Type:ty) => {};
    ($name:ident: $Type:ty = $default:expr) => {
        /// What holds: what is given, or the default.
        #[must_use]
        pub fn $name(&self) -> $Type {
            self.$name.as_ref().map_or_else(|| $default, Clone::clone)
        }
    };
}

pub(in crate::server) use {default, setting, settings, what_holds};
