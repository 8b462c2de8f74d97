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

#[test]
fn memory_that_is_given_away_is_the_same_elsewhere() {
    passes("memory_that_is_given_away_is_the_same_elsewhere", &[("DEVICES", "2")], || {
        const DESCRIPTOR: u32 = 1;
        use_device(0);
        let (mut own, mut shared) = (0, -1);
        assert_eq!(cuMemCreate(&mut own, 2 * MIB, &prop(0), 0), SUCCESS);
        let refused = cuMemExportToShareableHandle(&mut shared, own, DESCRIPTOR, 0);
        assert_eq!(refused, INVALID_VALUE, "it was not made for that");
        let shareable = Prop { requested_handle_types: DESCRIPTOR, ..prop(0) };
        let (mut handle, mut window) = (0, 0);
        assert_eq!(cuMemCreate(&mut handle, 4 * MIB, &shareable, 0), SUCCESS);
        assert_eq!(cuMemExportToShareableHandle(&mut shared, handle, DESCRIPTOR, 0), SUCCESS);
        assert_eq!(cuMemAddressReserve(&mut window, 8 * MIB, 0, 0, 0), SUCCESS);
        assert_eq!(cuMemMap(window, 4 * MIB, 0, handle, 0), SUCCESS);
        assert_eq!(cuMemSetAccess(window, 4 * MIB, &access(0), 1), SUCCESS);
        put(window + 100, &[1_u32, 2, 3]);

        // As another process would, whose device is another one.
        use_device(1);
        let (mut given, there) = (0, window + 4 * MIB as u64);
        assert_eq!(cuMemImportFromShareableHandle(&mut given, shared as u64, DESCRIPTOR), SUCCESS);
        assert_eq!(cuMemMap(there, 4 * MIB, 0, given, 0), SUCCESS);
        assert_eq!(cuMemSetAccess(there, 4 * MIB, &access(1), 1), SUCCESS);
        let mut ordinal = 9;
        assert_eq!(cuPointerGetAttribute((&raw mut ordinal).cast(), 9, there), SUCCESS);
        assert_eq!(ordinal, 0, "it is of the first device still");
        let target = allocate(MIB);
        assert_eq!(cuMemcpyDtoDAsync_v2(target, there + 100, 12, 0), SUCCESS);
        assert_eq!(get::<u32>(target, 3), [1, 2, 3]);
        // Whoever gave it away has done with it.
        assert_eq!(cuMemUnmap(window, 4 * MIB), SUCCESS);
        assert_eq!(cuMemRelease(handle), SUCCESS);
        assert_eq!(get::<u32>(there + 100, 3), [1, 2, 3]);
        assert_eq!(cuMemImportFromShareableHandle(&mut given, 999, DESCRIPTOR), INVALID_VALUE);
        assert_eq!(cuMemImportFromShareableHandle(&mut given, 2, DESCRIPTOR), INVALID_VALUE, "no memory");
    });
}

#[test]
fn devices_may_not_reach_each_other() {
    let environment = [("DEVICES", "2"), ("PROFILE", "h200:peer_gbps=0")];
    passes("devices_may_not_reach_each_other", &environment, || {
        assert_eq!(cuInit(0), SUCCESS);
        let mut answer = 7;
        assert_eq!(cuDeviceCanAccessPeer(&mut answer, 0, 1), SUCCESS);
        assert_eq!(answer, 0);
    });
}
