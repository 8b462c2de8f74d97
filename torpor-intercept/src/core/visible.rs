//! `CUDA_VISIBLE_DEVICES`: which of the function's devices the program wants to see, and in what order.
//!
//! As with NVIDIA's driver ("CUDA environment variables" in the programming guide), a list counts up to its first entry that
//! names no device, and an entry is a number, or `GPU-` and the beginning of a UUID. Who names a device twice sees none.

use super::device::DeviceInfo;

/// What the list says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum VisibleDevices {
    /// There is no list.
    All,
    /// Those that are named, in this order.
    Named(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Number(usize),
    /// The device whose UUID begins so: hexadecimal digits in lower case, without hyphens.
    Uuid(String),
}

impl VisibleDevices {
    /// What the environment says.
    pub(super) fn of_process() -> Self {
        Self::new(std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref())
    }

    fn new(list: Option<&str>) -> Self {
        let Some(list) = list else { return Self::All };
        Self::Named(list.split(',').map_while(|entry| Entry::new(entry.trim())).collect())
    }

    /// Whether none is named, whatever there is.
    pub(super) fn are_none(&self) -> bool {
        matches!(self, Self::Named(entries) if entries.is_empty())
    }

    /// Whether a function of one device may have what is named first, as far as that is known without it.
    pub(super) fn may_be_the_only(&self) -> bool {
        !matches!(self, Self::Named(entries) if matches!(entries.first(), Some(Entry::Number(1..))))
    }

    /// The numbers of those that are seen, by ordinal.
    pub(super) fn choose(&self, devices: &[DeviceInfo]) -> Vec<usize> {
        let Self::Named(entries) = self else { return (0..devices.len()).collect() };
        let chosen: Vec<usize> = entries.iter().map_while(|entry| entry.find(devices)).collect();
        // Of the only device the first entry decides.
        if let [_] = devices {
            return chosen.into_iter().take(1).collect();
        }
        let names_twice = chosen.iter().enumerate().any(|(at, number)| chosen[..at].contains(number));
        if names_twice { Vec::new() } else { chosen }
    }
}

impl Entry {
    fn new(text: &str) -> Option<Self> {
        match text.strip_prefix("GPU-") {
            Some(digits) => Some(Self::Uuid(digits.replace('-', "").to_ascii_lowercase())),
            None => {
                text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?.map(Self::Number)
            }
        }
    }

    fn find(&self, devices: &[DeviceInfo]) -> Option<usize> {
        match self {
            Self::Number(number) => (*number < devices.len()).then_some(*number),
            Self::Uuid(beginning) => devices.iter().position(|device| {
                let digits: String = device.uuid.iter().map(|byte| format!("{byte:02x}")).collect();
                digits.starts_with(beginning.as_str())
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use torpor_proto::control::client::Device;

    const UUID: [u8; 16] =
        [0x89, 0x32, 0xf9, 0x37, 0xd7, 0x2c, 0x41, 0x06, 0xc1, 0x2f, 0x20, 0xbd, 0x9f, 0xae, 0xd9, 0xf6];

    fn devices(count: u8) -> Vec<DeviceInfo> {
        let device = Device { attributes: HashMap::from([(16, 1)]), ..Device::default() };
        let own = DeviceInfo::new(device, 0).unwrap();
        (0..count)
            .map(|number| own.named([UUID[0] ^ number; 1].repeat(16).try_into().unwrap(), [0; 3]))
            .collect()
    }

    fn only() -> Vec<DeviceInfo> {
        vec![devices(1)[0].named(UUID, [0; 3])]
    }

    fn seen(list: Option<&str>, devices: &[DeviceInfo]) -> Vec<usize> {
        VisibleDevices::new(list).choose(devices)
    }

    #[test]
    fn of_one_device_lists_are_read_as_the_driver_reads_them() {
        for list in
            [None, Some("0"), Some("0,1"), Some(" 0 "), Some("0,-1"), Some("0,GPU-00000000"), Some("0,0")]
        {
            assert_eq!(seen(list, &only()), [0], "{list:?}");
        }
        for list in ["", "-1", "1", "1,0", "none", "-1,0", "99", "MIG-1", "+0"] {
            assert_eq!(seen(Some(list), &only()), [0usize; 0], "{list}");
        }
        for list in ["", "-1", "none", "MIG-1"] {
            assert!(VisibleDevices::new(Some(list)).are_none(), "{list}");
        }
        assert!(!VisibleDevices::new(Some("1")).may_be_the_only());
        assert!(VisibleDevices::new(Some("0,7")).may_be_the_only());
    }

    #[test]
    fn of_several_a_list_chooses_and_orders() {
        for (list, chosen) in [
            (None, &[0, 1, 2][..]),
            (Some("1"), &[1]),
            (Some("2,0"), &[2, 0]),
            (Some("1,7,0"), &[1]),
            (Some("0,-1,2"), &[0]),
            (Some("3"), &[]),
            (Some("1,1"), &[]),
            (Some(""), &[]),
            (Some("GPU-8888,0"), &[1, 0]),
            (Some("GPU-8b8b8b8b-8b8b,GPU-89"), &[2, 0]),
        ] {
            assert_eq!(seen(list, &devices(3)), chosen, "{list:?}");
        }
    }

    #[test]
    fn the_beginning_of_a_uuid_is_enough() {
        let whole = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6";
        for length in [5, 8, 12, 13, 20, whole.len()] {
            assert_eq!(seen(Some(&whole[..length]), &only()), [0], "{}", &whole[..length]);
        }
        for other in [
            "GPU-00000000",
            "GPU-8932f938",
            "GPU-8932f937-d72c-4106-c12f-20bd9faed9f7",
            "GPU-8932f937-d72c-4106-c12f-20bd9faed9f60",
        ] {
            assert_eq!(seen(Some(other), &only()), [0usize; 0], "{other}");
        }
    }
}
