//! Devices: what they say of themselves, several of them, access between them.

mod common;

use std::ffi::CStr;

use common::*;

fn attribute(id: i32, device: i32) -> i32 {
    let mut value = -7;
    assert_eq!(cuDeviceGetAttribute(&mut value, id, device), SUCCESS);
    value
}

#[test]
fn the_default_is_an_h200() {
    passes("the_default_is_an_h200", &[], || {
        let mut count = 0;
        assert_eq!(cuDeviceGetCount(&mut count), 3, "not initialised");
        assert_eq!(cuInit(1), INVALID_VALUE);
        assert_eq!(cuInit(0), SUCCESS);
        assert_eq!(cuDeviceGetCount(&mut count), SUCCESS);
        assert_eq!(count, 1);
        let mut name = [0; 64];
        assert_eq!(cuDeviceGetName(name.as_mut_ptr(), 64, 0), SUCCESS);
        // SAFETY: the call wrote a NUL-terminated string.
        assert_eq!(unsafe { CStr::from_ptr(name.as_ptr()) }, c"NVIDIA H200");
        let mut bytes = 0;
        assert_eq!(cuDeviceTotalMem_v2(&mut bytes, 0), SUCCESS);
        assert_eq!(bytes, 141 << 30);
        assert_eq!([16, 75, 76, 1, 10, 95, 97].map(|id| attribute(id, 0)), [132, 9, 0, 1024, 32, 1, 232_448]);
        let mut value = 0;
        assert_eq!(cuDeviceGetAttribute(&mut value, 10_000, 0), INVALID_VALUE);
        assert_eq!(cuDeviceGetAttribute(&mut value, 1, 1), 101);
        assert_eq!(cuDeviceGetAttribute(std::ptr::null_mut(), 1, 0), INVALID_VALUE);
    });
}

#[test]
fn a_machine_may_have_no_device() {
    passes("a_machine_may_have_no_device", &[("DEVICES", "0")], || assert_eq!(cuInit(0), 100));
}

#[test]
fn a_wrong_environment_is_told() {
    let ended = ended("a_wrong_environment_is_told", &[("PROFILE", "abacus")], || assert_eq!(cuInit(0), 3));
    assert_eq!(ended.code, 0);
    assert!(ended.output.contains("abacus") && ended.output.contains("v100-pcie3"), "{}", ended.output);
}

#[test]
fn devices_differ() {
    passes("devices_differ", &[("DEVICES", "4"), ("PROFILE", "v100-pcie3")], || {
        assert_eq!(cuInit(0), SUCCESS);
        let identity = |device| {
            let (mut uuid, mut bus) = ([0; 16], [0; 16]);
            assert_eq!(cuDeviceGetUuid_v2(&mut uuid, device), SUCCESS);
            assert_eq!(cuDeviceGetPCIBusId(bus.as_mut_ptr(), 16, device), SUCCESS);
            (uuid, bus, attribute(33, device))
        };
        for a in 0..4 {
            assert!((0..a).all(|b| identity(a).0 != identity(b).0 && identity(a).1 != identity(b).1));
        }
        assert_eq!((attribute(75, 3), attribute(120, 3)), (7, 0));
        let mut answer = 0;
        assert_eq!(cuDeviceCanAccessPeer(&mut answer, 0, 3), SUCCESS);
        assert_eq!(answer, 1);
        assert_eq!(cuDeviceCanAccessPeer(&mut answer, 2, 2), SUCCESS);
        assert_eq!(answer, 0);
    });
}

#[test]
fn contexts_are_counted() {
    passes("contexts_are_counted", &[("MEMORY", "64MiB")], || {
        let context = use_device(0);
        assert_eq!(use_device(0), context);
        allocate(32 * MIB);
        assert_eq!(cuDevicePrimaryCtxRelease_v2(0), SUCCESS);
        let mut device = 9;
        assert_eq!(cuCtxGetDevice(&mut device), SUCCESS);
        assert_eq!(device, 0);
        assert_eq!(cuDevicePrimaryCtxRelease_v2(0), SUCCESS);
        assert_eq!(cuDevicePrimaryCtxRelease_v2(0), INVALID_CONTEXT);
        assert_eq!(cuCtxGetDevice(&mut device), 709, "destroyed");
        assert_eq!(cuCtxSetCurrent(context), INVALID_CONTEXT);
        use_device(0);
        allocate(64 * MIB);
    });
}

#[test]
fn memory_belongs_to_a_device() {
    passes("memory_belongs_to_a_device", &[("DEVICES", "2"), ("MEMORY", "32MiB")], || {
        let first = use_device(0);
        let on_first = allocate(32 * MIB);
        put(on_first, &[1_u32, 2, 3]);
        let second = use_device(1);
        let on_second = allocate(MIB);
        assert_eq!(cuMemcpyPeerAsync(on_second, second, on_first, first, 12, 0), SUCCESS);
        assert_eq!(get::<u32>(on_second, 3), [1, 2, 3]);
        let mut ordinal = 9;
        assert_eq!(cuPointerGetAttribute((&raw mut ordinal).cast(), 9, on_first), SUCCESS);
        assert_eq!(ordinal, 0);
        assert_eq!(cuCtxEnablePeerAccess(first, 0), SUCCESS);
        assert_eq!(cuCtxEnablePeerAccess(first, 0), 704);
        assert_eq!(cuCtxEnablePeerAccess(second, 0), 217, "itself");
    });
}
