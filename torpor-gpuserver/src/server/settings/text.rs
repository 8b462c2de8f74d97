//! Values that are texts in the settings file: sizes, times and names.

use crate::chunk::CHUNK_BYTES;
use crate::policy::sharing::ActiveLimit;
use crate::server::size::{ByteSize, InvalidSize};
use crate::server::time::Time;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Unexpected, Visitor};
use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::num::{NonZeroU32, NonZeroUsize};
use std::str::FromStr;
use std::time::Duration;
use torpor_proto::directory::{InvalidName, check_function_name};
use torpor_proto::layout::{MAX_CLIENTS, SEGMENT_GRANULE_BYTES};

/// Reads a text by [`FromStr`]. The error says what it found instead, and what was expected.
struct Text<T> {
    expecting: &'static str,
    value: PhantomData<T>,
}

impl<T> Text<T> {
    fn new(expecting: &'static str) -> Self {
        Self { expecting, value: PhantomData }
    }
}

impl<T: FromStr<Err: Display>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.expecting)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

const SIZE: &str =
    "a size with a unit (B, KiB, MiB, GiB, TiB, kB, MB, GB or TB) in quotes, such as \"512MiB\"";

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text::new(SIZE))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_str(Text::new("a time with a unit (us, ms, s, m or h) in quotes, such as \"100ms\""))
    }
}

/// An amount of device memory that somebody may use.
///
/// # Errors
/// What is wrong with the text, or that nothing could be allocated in so little.
pub fn device_memory(text: &str) -> Result<ByteSize, String> {
    enough(text.parse().map_err(|error: InvalidSize| error.to_string())?)
}

/// The shortest time after which a kernel may be called endless: a busy node's worker looks up less often than a kernel ends.
const SHORTEST_KERNEL_TIMEOUT: Time = Time(Duration::from_millis(100));

/// Reads a key that limits how long a kernel runs.
///
/// # Errors
/// What is wrong with the text, or that the time is too short.
pub fn kernel_timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    let time = Time::deserialize(deserializer)?;
    if time < SHORTEST_KERNEL_TIMEOUT {
        return Err(D::Error::custom(format!("{time} is too short: give {SHORTEST_KERNEL_TIMEOUT} or more")));
    }
    Ok(Some(time))
}

/// Reads a key that limits device memory.
///
/// # Errors
/// As [`device_memory`].
pub fn device_memory_limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ByteSize>, D::Error> {
    enough(ByteSize::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

/// Reads a key that says how much host memory there is for device memory.
///
/// # Errors
/// What is wrong with it, or that not even one chunk would fit.
pub fn host_memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ByteSize>, D::Error> {
    let size = ByteSize::deserialize(deserializer)?;
    if size.0 >= CHUNK_BYTES {
        return Ok(Some(size));
    }
    Err(D::Error::custom(format_args!(
        "{size} is too little: memory is kept in pieces of 2 MiB, use 2MiB or more"
    )))
}

/// Reads a whole number.
pub(super) struct Whole<T> {
    pub(super) expecting: &'static str,
    pub(super) convert: fn(i64) -> Option<T>,
}

impl<T> Visitor<'_> for Whole<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.expecting)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        (self.convert)(number).ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }
}

/// A part of requests, above a half and below all, in ten-thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percentile(u16);

impl Percentile {
    /// As a fraction.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 1e4
    }
}

impl<'de> Deserialize<'de> for Percentile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fraction = f64::deserialize(deserializer)?;
        if (0.5..=0.9999).contains(&fraction) {
            return Ok(Self((fraction * 1e4).round() as u16));
        }
        Err(D::Error::custom(format_args!(
            "{fraction} is no part of the requests: give 0.5 to 0.9999, such as 0.98"
        )))
    }
}

/// Reads a key that is a number of milliseconds.
///
/// # Errors
/// What is wrong with it.
pub fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU32>, D::Error> {
    let convert = |number| u32::try_from(number).ok().and_then(NonZeroU32::new);
    let expecting = "a whole number of milliseconds from 1 to 4294967295";
    deserializer.deserialize_i64(Whole { expecting, convert }).map(Some)
}

impl<'de> Deserialize<'de> for ActiveLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrAuto;

        impl Visitor<'_> for NumberOrAuto {
            type Value = ActiveLimit;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a whole number from 1, or \"auto\"")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<ActiveLimit, E> {
                let clients = usize::try_from(number).ok().and_then(NonZeroUsize::new);
                clients
                    .map(ActiveLimit::AtMost)
                    .ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ActiveLimit, E> {
                match text {
                    "auto" => Ok(ActiveLimit::Auto),
                    other => Err(E::invalid_value(Unexpected::Str(other), &self)),
                }
            }
        }

        deserializer.deserialize_any(NumberOrAuto)
    }
}

/// Reads a key that is a number of clients of a node.
///
/// # Errors
/// What is wrong with it, or that no node has room for so many.
pub fn clients_of_node<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU32>, D::Error> {
    let convert =
        |number| u32::try_from(number).ok().filter(|&number| number <= MAX_CLIENTS).and_then(NonZeroU32::new);
    const { assert!(MAX_CLIENTS == 2048, "the number in the text") };
    deserializer.deserialize_i64(Whole { expecting: "a whole number from 1 to 2048", convert }).map(Some)
}

/// Checks an amount of device memory that somebody may use.
///
/// # Errors
/// Nothing could be allocated in so little.
pub fn enough(size: ByteSize) -> Result<ByteSize, String> {
    if size.0 >= SEGMENT_GRANULE_BYTES {
        Ok(size)
    } else {
        Err(format!("{size} is too little, since memory is allocated in pieces of 2 MiB: use 2MiB or more"))
    }
}

/// The name of a function, checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FunctionName(pub String);

impl FromStr for FunctionName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        check_function_name(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for FunctionName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text::new("the name of a function"))
    }
}

/// Reads a key that limits each GPU's memory: one size for every GPU, or a list with one for each.
///
/// # Errors
/// What is wrong with a size, or that there is none.
pub fn gpu_limits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<ByteSize>>, D::Error> {
    struct OneOrMany;

    impl<'de> Visitor<'de> for OneOrMany {
        type Value = Vec<ByteSize>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "{SIZE}, or a list of such sizes with one for each GPU")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<ByteSize>, E> {
            device_memory(text).map(|size| vec![size]).map_err(E::custom)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<ByteSize>, A::Error> {
            let mut sizes = Vec::new();
            while let Some(size) = list.next_element()? {
                sizes.push(enough(size).map_err(A::Error::custom)?);
            }
            if sizes.is_empty() { Err(A::Error::custom("the list is empty")) } else { Ok(sizes) }
        }
    }

    deserializer.deserialize_any(OneOrMany).map(Some)
}
