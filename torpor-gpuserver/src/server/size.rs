//! Sizes as people write them: a number with a unit.

use std::fmt;
use std::str::FromStr;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// A number of bytes that reads `16GiB` on the command line and `1.5 GiB` in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A text that is no size.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSize {
    /// It is not written like one.
    #[error(
        "{0:?} is no size: write a number and a unit (B, KiB, MiB, GiB, TiB, kB, MB, GB or TB), such as 512MiB or 16GiB"
    )]
    Unreadable(String),
    /// It is more than can be counted: 2⁶⁴ bytes, or 2⁵³ with a fraction.
    #[error("{0:?} is too large: whole numbers go up to 16777215TiB, those with a fraction up to 8191TiB")]
    TooLarge(String),
}

impl FromStr for ByteSize {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let invalid = || InvalidSize::Unreadable(text.to_owned());
        let too_large = || InvalidSize::TooLarge(text.to_owned());
        let trimmed = text.trim();
        let unit_at = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let (number, unit) = trimmed.split_at(unit_at);
        let unit_bytes = match unit.trim_start() {
            "B" => 1,
            "KiB" => KIB,
            "MiB" => MIB,
            "GiB" => GIB,
            "TiB" => TIB,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            _ => return Err(invalid()),
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(unit_bytes).map(Self).ok_or_else(too_large);
        }
        let bytes = number.parse::<f64>().map_err(|_| invalid())? * unit_bytes as f64;
        // A float beyond 2^53 is no exact count any more; nobody writes 8191.5TiB.
        if bytes < (1_u64 << 53) as f64 { Ok(Self(bytes as u64)) } else { Err(too_large()) }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit_bytes, unit) = match self.0 {
            TIB.. => (TIB, "TiB"),
            GIB.. => (GIB, "GiB"),
            MIB.. => (MIB, "MiB"),
            KIB.. => (KIB, "KiB"),
            bytes => return formatter.pad(&format!("{bytes} B")),
        };
        let value = self.0 as f64 / unit_bytes as f64;
        let text = if value >= 99.95 || self.0.is_multiple_of(unit_bytes) {
            format!("{value:.0} {unit}")
        } else {
            format!("{value:.1} {unit}")
        };
        formatter.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_need_a_unit() {
        assert_eq!("16GiB".parse(), Ok(ByteSize(16 << 30)));
        assert_eq!(" 1.5 MiB".parse(), Ok(ByteSize(3 << 19)));
        assert_eq!("2GB".parse(), Ok(ByteSize(2_000_000_000)));
        for text in ["", "16", "GiB", "-1GiB", "1.2.3GiB", "16gigs", "9e9TiB"] {
            assert_eq!(text.parse::<ByteSize>(), Err(InvalidSize::Unreadable(text.to_owned())), "{text}");
        }
        for text in ["18446744073709551615TiB", "99999999TiB", "8192.5TiB"] {
            assert_eq!(text.parse::<ByteSize>(), Err(InvalidSize::TooLarge(text.to_owned())), "{text}");
        }
        assert_eq!("16777215TiB".parse(), Ok(ByteSize(16_777_215 << 40)));
    }

    #[test]
    fn tables_show_few_digits() {
        let shown = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1 << 20, "1 MiB"),
            (3 << 29, "1.5 GiB"),
            (150_121_545_728, "140 GiB"),
        ];
        for (bytes, text) in shown {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
        assert_eq!(format!("{:>8}|{:<8}|", ByteSize(1 << 30), ByteSize(5)), "   1 GiB|5 B     |");
    }

    proptest! {
        #[test]
        fn whole_sizes_survive_writing_and_reading(count in 1..1024_u64, power in 0..5_u32) {
            let size = ByteSize(count << (10 * power));
            prop_assert_eq!(size.to_string().parse::<ByteSize>(), Ok(size));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = text.parse::<ByteSize>();
        }
    }
}
