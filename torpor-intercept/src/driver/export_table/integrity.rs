//! d4082055: cudart's question whether it talks to a driver.
//!
//! Each copy of cudart asks three times, with its version plus 0, 1 and 2. The first two answers are constants, the third is an
//! HMAC (RFC 2104) with MD2 (RFC 1319) over what both sides know. A wrong answer shows as error 103 on every call.

use std::ffi::c_int;
use std::mem::offset_of;

use hmac::{Hmac, KeyInit, Mac};
use md2::Md2;

use super::host::DeviceIdentity;
use super::{INVALID_VALUE, SUCCESS, cudart_interface, host};
use crate::driver::guard;

pub(super) const ID: [u8; 16] = super::uuid("d4082055-bde6-704b-8d34-ba123c66e1f2");

const KEY: [u8; 16] = super::uuid("146addae53a9a752aa0841360bf55a9f");
const ANSWER_0: [u8; 16] = super::uuid("5c67cb031c184133e8d14c1faa83d38e");
const ANSWER_1: [u8; 16] = super::uuid("5c67cb031c184118e8d14c1faa83d38e");

#[repr(C)]
pub(super) struct Table {
    size_bytes: usize,
    check: unsafe extern "C" fn(u32, u64, *mut u8) -> c_int,
    nothing_2: extern "C" fn(c_int) -> c_int,
}

const _: () = {
    assert!(size_of::<Table>() == 24);
    assert!(offset_of!(Table, check) == 8);
};

pub(super) static TABLE: Table = Table { size_bytes: size_of::<Table>(), check, nothing_2: nothing };

/// What the answer is about.
struct Question {
    driver_version: u32,
    version: u32,
    process: u32,
    /// Low half of pthread_self().
    thread: u32,
    cudart_interface_table: u64,
    integrity_table: u64,
    /// The function in this table's slot 1.
    check_function: u64,
    unix_seconds: u64,
    devices: Vec<DeviceIdentity>,
}

impl Question {
    /// The fields, little-endian, without padding.
    fn message(&self) -> Vec<u8> {
        let words = [self.driver_version, self.version, self.process, self.thread];
        let addresses =
            [self.cudart_interface_table, self.integrity_table, self.check_function, self.unix_seconds];
        let mut message: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        message.extend(addresses.iter().flat_map(|address| address.to_le_bytes()));
        for device in &self.devices {
            message.extend(device.uuid);
            message.extend(
                [device.pci_domain, device.pci_bus, device.pci_device]
                    .iter()
                    .flat_map(|field| field.to_le_bytes()),
            );
        }
        message
    }

    fn answer(&self) -> [u8; 16] {
        match self.version % 10 {
            0 => ANSWER_0,
            1 => ANSWER_1,
            _ => {
                let mut code = Hmac::<Md2>::new(&KEY.into());
                code.update(&self.message());
                code.finalize().into_bytes().into()
            }
        }
    }
}

/// Writes exactly 16 bytes to `out`.
unsafe extern "C" fn check(version: u32, unix_seconds: u64, out: *mut u8) -> c_int {
    guard(|| {
        if out.is_null() {
            return INVALID_VALUE;
        }
        let question = Question {
            driver_version: host::driver_version().cast_unsigned(),
            version,
            process: std::process::id(),
            thread: this_thread(),
            cudart_interface_table: (&raw const cudart_interface::TABLE).addr() as u64,
            integrity_table: (&raw const TABLE).addr() as u64,
            check_function: TABLE.check as usize as u64,
            unix_seconds,
            devices: host::devices(),
        };
        // SAFETY: cudart, which calls this, promises 16 writable bytes; an array of bytes has no alignment.
        unsafe { out.cast::<[u8; 16]>().write(question.answer()) };
        SUCCESS
    })
}

fn this_thread() -> u32 {
    // SAFETY: has no preconditions.
    let thread = unsafe { libc::pthread_self() };
    thread as u32
}

extern "C" fn nothing(_what: c_int) -> c_int {
    SUCCESS
}

#[cfg(test)]
mod tests {
    use md2::Digest;

    use super::super::uuid;
    use super::*;

    fn question(devices: Vec<DeviceIdentity>) -> Question {
        Question {
            driver_version: 12080,
            version: 12082,
            process: 0x2fa423,
            thread: 0xf79c_1000,
            cudart_interface_table: 0x7fff_f695_8240,
            integrity_table: 0x7fff_f695_8220,
            check_function: 0x7fff_f2aa_f4a0,
            unix_seconds: 0x682b_9cee,
            devices,
        }
    }

    fn device(pci_bus: i32, pci_domain: i32) -> DeviceIdentity {
        DeviceIdentity { uuid: uuid("9afe2b8aac252d38ea37aec56d71325f"), pci_domain, pci_bus, pci_device: 0 }
    }

    #[test]
    fn md2_is_that_of_rfc_1319() {
        let digest: [u8; 16] = Md2::digest(b"").into();
        assert_eq!(digest, uuid("8350e5a3e24c153df2275c9f80692773"));
    }

    #[test]
    fn published_answers_are_met() {
        for (devices, expected) in [
            (vec![device(2, 0)], "4448a171b026cef76c8c3e39051b02dd"),
            (vec![], "0779ef5e4ffa2dd207527503d1907bfa"),
            (vec![device(2, 0), device(3, 1)], "128be296118e674f763c6cf96dba3e38"),
        ] {
            assert_eq!(question(devices).answer(), uuid(expected));
        }
    }

    #[test]
    fn the_first_two_answers_are_constants() {
        for (version, expected) in [(13000, ANSWER_0), (13001, ANSWER_1), (12080, ANSWER_0)] {
            assert_eq!(Question { version, ..question(vec![]) }.answer(), expected);
        }
    }

    #[test]
    fn exactly_sixteen_bytes_are_written() {
        let mut out = [0xee; 48];
        for version in [13000, 13001, 13002] {
            // SAFETY: 16 bytes are writable from there on.
            assert_eq!(unsafe { (TABLE.check)(version, 1_800_000_000, out[16..].as_mut_ptr()) }, SUCCESS);
            assert!(out[..16].iter().chain(&out[32..]).all(|byte| *byte == 0xee));
            assert!(out[16..32].iter().any(|byte| *byte != 0xee));
        }
        // SAFETY: null is refused.
        assert_eq!(unsafe { (TABLE.check)(13000, 0, std::ptr::null_mut()) }, INVALID_VALUE);
    }
}
