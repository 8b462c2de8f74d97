//! What a request asks for itself: until when it wants its answer, and how much it matters.

use crate::error::Refusal;
use crate::queue::Priority;
use hyper::HeaderMap;
use std::time::{Duration, Instant};
use torpor_gpuserver::server::time::Time;

/// How long the client waits, as a time with a unit (`250ms`). The function's time-out holds if it is shorter.
pub const DEADLINE_HEADER: &str = "x-torpor-deadline";

/// `high`, `normal` or `low`.
pub const PRIORITY_HEADER: &str = "x-torpor-priority";

/// A request's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The answer is of no use afterwards.
    pub deadline: Instant,
    /// Against the function's other requests.
    pub priority: Priority,
}

impl Terms {
    /// Reads a request's headers.
    ///
    /// # Errors
    /// [`Refusal::Header`] for a value that says nothing.
    pub fn of(headers: &HeaderMap, now: Instant, timeout: Duration) -> Result<Self, Refusal> {
        let text = |name: &'static str| {
            let value = headers.get(name).map(|value| value.to_str());
            value.transpose().map_err(|_| Refusal::Header { name, expected: "ASCII text" })
        };
        let patience = match text(DEADLINE_HEADER)? {
            None => timeout,
            Some(value) => match value.parse::<Time>() {
                Ok(Time(asked)) => asked.min(timeout),
                Err(_) => {
                    return Err(Refusal::Header { name: DEADLINE_HEADER, expected: "a time such as 250ms" });
                }
            },
        };
        let priority = match text(PRIORITY_HEADER)? {
            None | Some("normal") => Priority::Normal,
            Some("high") => Priority::High,
            Some("low") => Priority::Low,
            Some(_) => {
                return Err(Refusal::Header { name: PRIORITY_HEADER, expected: "high, normal or low" });
            }
        };
        Ok(Self { deadline: now + patience, priority })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(headers: &[(&'static str, &'static str)]) -> Result<(Duration, Priority), String> {
        let now = Instant::now();
        let headers = headers.iter().map(|&(name, value)| {
            (name.parse::<hyper::header::HeaderName>().unwrap(), value.parse().unwrap())
        });
        let terms =
            Terms::of(&headers.collect(), now, Duration::from_secs(2)).map_err(|error| error.to_string())?;
        Ok((terms.deadline - now, terms.priority))
    }

    #[test]
    fn headers_shorten_the_time_out_and_never_lengthen_it() {
        assert_eq!(terms(&[]), Ok((Duration::from_secs(2), Priority::Normal)));
        assert_eq!(
            terms(&[("x-torpor-deadline", "80ms"), ("x-torpor-priority", "high")]),
            Ok((Duration::from_millis(80), Priority::High))
        );
        assert_eq!(terms(&[("x-torpor-deadline", "1h")]), Ok((Duration::from_secs(2), Priority::Normal)));
    }

    #[test]
    fn a_value_that_says_nothing_is_refused_with_what_is_expected() {
        assert!(terms(&[("x-torpor-deadline", "soon")]).unwrap_err().contains("250ms"));
        assert!(terms(&[("x-torpor-priority", "urgent")]).unwrap_err().contains("high, normal or low"));
    }
}
