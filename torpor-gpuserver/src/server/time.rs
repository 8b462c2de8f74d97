//! Times as people write them: a number with a unit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A length of time that reads `100ms` on the command line and in the settings file, in whole microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

/// A text that is no time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time: write a number and a unit (us, ms, s, m or h), such as 100ms or 1.5s")]
pub struct InvalidTime(String);

impl FromStr for Time {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        let invalid = || InvalidTime(text.to_owned());
        let trimmed = text.trim();
        let unit_at = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let (number, unit) = trimmed.split_at(unit_at);
        let unit_us: u32 = match unit.trim_start() {
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            _ => return Err(invalid()),
        };
        let us = match number.parse::<u64>() {
            Ok(whole) => whole.checked_mul(unit_us.into()),
            Err(_) => {
                let us = number.parse::<f64>().map_err(|_| invalid())? * f64::from(unit_us);
                // A float beyond 2^53 is no exact count any more.
                (us < (1_u64 << 53) as f64).then_some(us as u64)
            }
        };
        us.map(|us| Self(Duration::from_micros(us))).ok_or_else(invalid)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0.as_micros();
        let text = if us.is_multiple_of(1_000_000) {
            format!("{}s", us / 1_000_000)
        } else if us.is_multiple_of(1_000) {
            format!("{}ms", us / 1_000)
        } else {
            format!("{us}us")
        };
        formatter.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_need_a_unit() {
        assert_eq!("100ms".parse(), Ok(Time(Duration::from_millis(100))));
        assert_eq!(" 1.5 s".parse(), Ok(Time(Duration::from_millis(1_500))));
        assert_eq!("250us".parse(), Ok(Time(Duration::from_micros(250))));
        for text in ["", "100", "ms", "-1ms", "1.2.3s", "2min", "18446744073709551615s", "9000000000000.5s"] {
            assert_eq!(text.parse::<Time>(), Err(InvalidTime(text.to_owned())), "{text}");
        }
    }

    proptest! {
        #[test]
        fn times_survive_writing_and_reading(us in 0..u64::MAX) {
            let time = Time(Duration::from_micros(us));
            prop_assert_eq!(time.to_string().parse::<Time>(), Ok(time));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = text.parse::<Time>();
        }
    }
}
