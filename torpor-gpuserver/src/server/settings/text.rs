//! Values that are texts in the settings file: sizes, times and names.

use crate::server::size::{ByteSize, InvalidSize};
use crate::server::time::Time;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::str::FromStr;
use torpor_proto::directory::{InvalidName, check_function_name};
use torpor_proto::layout::SEGMENT_GRANULE_BYTES;

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
            .deserialize_str(Text::new("a time with a unit (us, ms or s) in quotes, such as \"100ms\""))
    }
}

/// An amount of device memory that somebody may use.
///
/// # Errors
/// What is wrong with the text, or that nothing could be allocated in so little.
pub fn device_memory(text: &str) -> Result<ByteSize, String> {
    enough(text.parse().map_err(|error: InvalidSize| error.to_string())?)
}

/// Reads a key that limits device memory.
///
/// # Errors
/// As [`device_memory`].
pub fn device_memory_limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ByteSize>, D::Error> {
    enough(ByteSize::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

fn enough(size: ByteSize) -> Result<ByteSize, String> {
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

/// One size for every GPU, or a list with one for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerGpu(pub Vec<ByteSize>);

impl PerGpu {
    /// The size for the GPU at this place among those that serve.
    #[must_use]
    pub fn of(&self, gpu: usize) -> Option<ByteSize> {
        match self.0[..] {
            [all] => Some(all),
            ref each => each.get(gpu).copied(),
        }
    }
}

impl<'de> Deserialize<'de> for PerGpu {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = PerGpu;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{SIZE}, or a list of such sizes with one for each GPU")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<PerGpu, E> {
                device_memory(text).map(|size| PerGpu(vec![size])).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<PerGpu, A::Error> {
                let mut sizes = Vec::new();
                while let Some(size) = list.next_element()? {
                    sizes.push(enough(size).map_err(A::Error::custom)?);
                }
                if sizes.is_empty() { Err(A::Error::custom("the list is empty")) } else { Ok(PerGpu(sizes)) }
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}
