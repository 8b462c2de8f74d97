//! What a function and the demo say to each other: lines of words over the function's standard input and output.
//!
//! The function says how much it has to load, how far it is, and that it is ready. Then it gets one line per request, its
//! seed, and answers with one line. It ends when its input does.

use std::fmt;
use std::str::FromStr;

/// A line from a function.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// So many bytes of weights are on the GPU.
    Loaded { bytes: u64 },
    /// Requests may come.
    Ready,
    /// The answer to a request.
    Answer(Answer),
    /// It cannot go on, and ends.
    Failed { reason: String },
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Of the request.
    pub seed: u64,
    /// What the GPU took for it, by the GPU's own clock, in microseconds.
    pub gpu_us: u64,
    /// The output.
    pub values: Vec<f32>,
}

/// A line that is no message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of loaded, ready, answer, failed")]
pub struct Garbled(String);

impl fmt::Display for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loaded { bytes } => write!(formatter, "loaded {bytes}"),
            Self::Ready => write!(formatter, "ready"),
            Self::Answer(Answer { seed, gpu_us, values }) => {
                write!(formatter, "answer {seed} {gpu_us}")?;
                // Bit by bit: a comparison must not depend on how decimals are rounded.
                values.iter().try_for_each(|value| write!(formatter, " {:08x}", value.to_bits()))
            }
            Self::Failed { reason } => write!(formatter, "failed {}", reason.replace('\n', " ")),
        }
    }
}

impl FromStr for Message {
    type Err = Garbled;

    fn from_str(line: &str) -> Result<Self, Garbled> {
        parse(line).ok_or_else(|| Garbled(line.chars().take(200).collect()))
    }
}

fn parse(line: &str) -> Option<Message> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    Some(match word {
        "loaded" => Message::Loaded { bytes: rest.parse().ok()? },
        "ready" if rest.is_empty() => Message::Ready,
        "answer" => {
            let mut words = rest.split(' ');
            let (seed, gpu_us) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let value = |word| Some(f32::from_bits(u32::from_str_radix(word, 16).ok()?));
            Message::Answer(Answer { seed, gpu_us, values: words.map(value).collect::<Option<_>>()? })
        }
        "failed" => Message::Failed { reason: rest.to_owned() },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_pipe() {
        let values = vec![0.1, -0.0, f32::INFINITY, 1e-40];
        for message in [
            Message::Loaded { bytes: u64::MAX },
            Message::Ready,
            Message::Answer(Answer { seed: 1 << 63, gpu_us: 12, values }),
            Message::Answer(Answer { seed: 0, gpu_us: 0, values: vec![] }),
            Message::Failed { reason: "no GPU: 100".into() },
        ] {
            assert_eq!(message.to_string().parse(), Ok(message));
        }
    }

    #[test]
    fn other_lines_are_refused() {
        for line in ["", "loaded", "loaded x", "ready now", "answer", "answer 1", "answer 1 2 xyz", "Hello"] {
            assert_eq!(line.parse::<Message>(), Err(Garbled(line.into())));
        }
    }
}
