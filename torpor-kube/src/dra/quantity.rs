//! Amounts of memory as Kubernetes writes them: `2Gi`, `500M`, `1e9`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A text that is no amount of memory.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no amount of memory: write a number of bytes, with a suffix such as Mi, Gi or G")]
pub struct InvalidQuantity(String);

/// The bytes of an amount; a part of one counts as a whole.
///
/// # Errors
/// [`InvalidQuantity`]; nothing, less than nothing, and more than 2⁶³ bytes are no amounts either.
pub fn bytes(text: &str) -> Result<u64, InvalidQuantity> {
    parse(text).filter(|&bytes| bytes > 0).ok_or_else(|| InvalidQuantity(text.to_owned()))
}

fn parse(text: &str) -> Option<u64> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) || number.len() > 30 {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (factor, divisor) = factor(unit)?;
    let divisor = divisor.checked_mul(10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    let bytes = digits.checked_mul(factor)?.div_ceil(divisor);
    u64::try_from(bytes).ok().filter(|&bytes| bytes <= i64::MAX as u64)
}

/// What a suffix multiplies by, and what it divides by.
fn factor(unit: &str) -> Option<(u128, u128)> {
    if let Some(exponent) = unit.strip_prefix(['e', 'E']).filter(|exponent| !exponent.is_empty()) {
        let exponent: i8 = exponent.parse().ok()?;
        let power = 10_u128.checked_pow(exponent.unsigned_abs().into())?;
        return Some(if exponent < 0 { (1, power) } else { (power, 1) });
    }
    Some(match unit {
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "" => (1, 1),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => return None,
    })
}

/// An amount, written with the largest suffix that leaves no fraction, as the API server does.
#[must_use]
pub fn quantity(bytes: u64) -> Quantity {
    let suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let power = (bytes.trailing_zeros() as usize / 10).min(suffixes.len() - 1);
    let power = if bytes == 0 { 0 } else { power };
    Quantity(format!("{}{}", bytes >> (10 * power), suffixes[power]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_are_what_kubernetes_means_by_them() {
        let amounts = [
            ("1", 1),
            ("2Gi", 2 << 30),
            ("1.5Gi", 3 << 29),
            ("500M", 500_000_000),
            ("1e9", 1_000_000_000),
            ("1E3", 1_000),
            ("1.5e1", 15),
            ("2500m", 3),
            (".5Ki", 512),
            ("1.", 1),
            ("7E", 7_000_000_000_000_000_000),
        ];
        for (text, expected) in amounts {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        let none = [
            "", "0", "0Gi", "-1", "+1", "Gi", ".", "1.2.3", "2GiB", "2 Gi", "8Ei", "1e99", "1e", "9e18G",
            "1e200",
        ];
        for text in none {
            assert_eq!(bytes(text), Err(InvalidQuantity(text.to_owned())));
        }
    }

    #[test]
    fn amounts_are_written_short() {
        assert_eq!(quantity(3 << 30).0, "3Gi");
        assert_eq!(quantity((3 << 30) + 1).0, "3221225473");
        assert_eq!(quantity(0).0, "0");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(amount in 1..i64::MAX as u64) {
            prop_assert_eq!(bytes(&quantity(amount).0), Ok(amount));
        }

        #[test]
        fn no_text_panics(text in ".*", number in "[0-9.]{0,40}", unit in "[eEinumkKMGTP+-]{0,3}[0-9]{0,3}") {
            let _ = (bytes(&text), bytes(&format!("{number}{unit}")));
        }
    }
}
