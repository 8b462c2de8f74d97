//! `CUDA_VISIBLE_DEVICES`: which devices the program wants to see. There is one, number 0.
//!
//! As with NVIDIA's driver ("CUDA environment variables" in the programming guide), a list counts up to its first entry that
//! names no device, and an entry is a number, or `GPU-` and the beginning of a UUID.

/// What a list says of the one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Visibility {
    Visible,
    Hidden,
    /// Visible if its UUID begins so: hexadecimal digits in lower case, without hyphens.
    IfUuid(String),
}

impl Visibility {
    /// What the environment says.
    pub(super) fn of_process() -> Self {
        Self::new(std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref())
    }

    fn new(list: Option<&str>) -> Self {
        let Some(list) = list else { return Self::Visible };
        let first = list.split(',').next().unwrap_or_default().trim();
        match first.strip_prefix("GPU-") {
            Some(digits) => Self::IfUuid(digits.replace('-', "").to_ascii_lowercase()),
            None if first == "0" => Self::Visible,
            None => Self::Hidden,
        }
    }

    /// Whether the device with this UUID is to be seen.
    pub(super) fn includes(&self, uuid: &[u8; 16]) -> bool {
        match self {
            Self::Visible => true,
            Self::Hidden => false,
            Self::IfUuid(beginning) => {
                let digits: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
                digits.starts_with(beginning.as_str())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: [u8; 16] =
        [0x89, 0x32, 0xf9, 0x37, 0xd7, 0x2c, 0x41, 0x06, 0xc1, 0x2f, 0x20, 0xbd, 0x9f, 0xae, 0xd9, 0xf6];

    #[test]
    fn lists_are_read_as_the_driver_reads_them() {
        let shown = [None, Some("0"), Some("0,1"), Some(" 0 "), Some("0,-1"), Some("0,GPU-00000000")];
        for list in shown {
            assert!(Visibility::new(list).includes(&UUID), "{list:?}");
        }
        for list in ["", "-1", "1", "1,0", "none", "-1,0", "99", "MIG-1"] {
            assert_eq!(Visibility::new(Some(list)), Visibility::Hidden, "{list}");
        }
    }

    #[test]
    fn the_beginning_of_a_uuid_is_enough() {
        let whole = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6";
        for length in [5, 8, 12, 13, 20, whole.len()] {
            assert!(Visibility::new(Some(&whole[..length])).includes(&UUID), "{}", &whole[..length]);
        }
        for other in [
            "GPU-00000000",
            "GPU-8932f938",
            "GPU-8932f937-d72c-4106-c12f-20bd9faed9f7",
            "GPU-8932f937-d72c-4106-c12f-20bd9faed9f60",
        ] {
            assert!(!Visibility::new(Some(other)).includes(&UUID), "{other}");
        }
    }
}
