//! Faults on demand: what the program sees.

mod common;

use common::*;
use std::sync::atomic::{AtomicU32, Ordering};

#[test]
fn a_call_fails_and_the_next_succeeds() {
    let environment = [("FAULTS", "call:cuMemCreate@2:out-of-memory; call:cuEventCreate:fail=801")];
    let ended = passes("a_call_fails_and_the_next_succeeds", &environment, || {
        use_device(0);
        let mut handle = 0;
        let create = |handle: &mut u64| cuMemCreate(handle, 2 * MIB, &prop(0), 0);
        assert_eq!(
            [create(&mut handle), create(&mut handle), create(&mut handle)],
            [SUCCESS, OUT_OF_MEMORY, SUCCESS]
        );
        assert_eq!(cuEventCreate(&mut handle, 0), NOT_SUPPORTED);
    });
    assert_eq!(ended.log_lines("fault on demand: call of cuMemCreate number 2"), 1, "{}", ended.log);
}

#[test]
fn a_failed_copy_sticks() {
    let ended = passes("a_failed_copy_sticks", &[("FAULTS", "copy@2:fail")], || {
        use_device(0);
        let (memory, stream) = (allocate(64), stream(1));
        put(memory, &[1_u8]);
        let source = [2_u8];
        assert_eq!(cuMemcpyHtoDAsync_v2(memory, source.as_ptr().cast(), 1, stream), SUCCESS, "only issued");
        assert_eq!(cuStreamSynchronize(stream), UNKNOWN);
        assert_eq!(cuCtxSynchronize(), UNKNOWN);
        let mut pointer = 0;
        assert_eq!(cuMemAlloc_v2(&mut pointer, 1), UNKNOWN);
        let mut name = std::ptr::null();
        assert_eq!(cuGetErrorName(UNKNOWN, &mut name), SUCCESS, "needs no device");
    });
    assert_eq!(ended.log_lines("sticky error CUDA_ERROR_UNKNOWN"), 1, "{}", ended.log);
}

/// What goes wrong in kernels, and its code.
const KINDS: [(&str, i32); 9] = [
    ("ecc", 214),
    ("illegal-address", 700),
    ("assert", 710),
    ("stack-overflow", 714),
    ("illegal-instruction", 715),
    ("misaligned-address", 716),
    ("invalid-address-space", 717),
    ("invalid-pc", 718),
    ("launch-failed", 719),
];

#[test]
fn each_kind_of_fault_has_hardware_s_error_and_sticks() {
    for (kind, _) in KINDS {
        let rule = format!("copy@1:{kind}");
        passes("each_kind_of_fault_has_hardware_s_error_and_sticks", &[("FAULTS", &rule)], || {
            let rule = std::env::var("TORPOR_SIMGPU_FAULTS").unwrap();
            let (_, code) = KINDS.into_iter().find(|(kind, _)| rule.ends_with(kind)).unwrap();
            use_device(0);
            let (memory, stream) = (allocate(64), stream(1));
            let source = [2_u8];
            assert_eq!(
                cuMemcpyHtoDAsync_v2(memory, source.as_ptr().cast(), 1, stream),
                SUCCESS,
                "only issued"
            );
            assert_eq!([cuStreamSynchronize(stream), cuCtxSynchronize()], [code; 2], "{rule}");
        });
    }
}

#[test]
fn a_hanging_copy_never_ends() {
    passes("a_hanging_copy_never_ends", &[("FAULTS", "copy@1:hang")], || {
        use_device(0);
        let (memory, host, hanging, other) = (allocate(64), pinned(64), stream(1), stream(1));
        assert_eq!(cuMemcpyHtoDAsync_v2(memory, host as *const _, 1, hanging), SUCCESS);
        assert_eq!(cuMemsetD8Async(memory, 0, 1, other), SUCCESS);
        assert_eq!(cuStreamSynchronize(other), SUCCESS, "other streams go on");
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(cuStreamQuery(hanging), NOT_READY);
    });
}

#[test]
fn a_call_that_jams_waits_for_all_work_and_keeps_others_from_calling() {
    passes(
        "a_call_that_jams_waits_for_all_work_and_keeps_others_from_calling",
        &[("FAULTS", "call:cuEventCreate@1:jam")],
        || {
            let context = use_device(0);
            let (word, busy) = (pinned(64), stream(1));
            assert_eq!(cuStreamWaitValue32_v2(busy, word, 1, 0), SUCCESS);
            let call = move |call: fn() -> i32| {
                std::thread::spawn(move || {
                    assert_eq!(cuCtxSetCurrent(context), SUCCESS);
                    assert_eq!(call(), SUCCESS);
                })
            };
            let jamming = call(|| cuEventCreate(&mut 0, 0));
            std::thread::sleep(std::time::Duration::from_millis(50));
            let other = call(|| SUCCESS);
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!jamming.is_finished() && !other.is_finished());
            // SAFETY: page-locked memory of this process.
            unsafe { AtomicU32::from_ptr(std::ptr::with_exposed_provenance_mut(word as usize)) }
                .store(1, Ordering::Release);
            assert!(jamming.join().is_ok() && other.join().is_ok());
        },
    );
}

#[test]
fn a_lost_device_leaves_the_others() {
    let ended = passes(
        "a_lost_device_leaves_the_others",
        &[("DEVICES", "2"), ("FAULTS", "device:0:lost@12")],
        || {
            let first = use_device(0);
            let memory = allocate(64);
            let second = use_device(1);
            allocate(64);
            assert_eq!(cuCtxSetCurrent(first), SUCCESS);
            let code = (0..20).map(|_| cuMemsetD8Async(memory, 1, 1, 0)).find(|&code| code != SUCCESS);
            assert_eq!(code, Some(UNKNOWN));
            assert_eq!(cuCtxSynchronize(), UNKNOWN);
            use_other(second);
        },
    );
    assert_eq!(ended.log_lines("device 0 has fallen off the bus"), 1, "{}", ended.log);
}

/// A thread that never had the lost device current can go on.
fn use_other(context: u64) {
    let thread = std::thread::spawn(move || {
        assert_eq!(cuCtxSetCurrent(context), SUCCESS);
        let memory = allocate(64);
        put(memory, &[1_u8, 2]);
        assert_eq!(get::<u8>(memory, 2), [1, 2]);
    });
    assert!(thread.join().is_ok());
}

#[test]
fn the_process_dies_when_told() {
    let body = || {
        use_device(0);
        for _ in 0..100 {
            let memory = allocate(64);
            assert_eq!(cuMemFree_v2(memory), SUCCESS);
        }
    };
    assert_eq!(ended("the_process_dies_when_told", &[("FAULTS", "call@50:abort")], body).code, -6);
    assert_eq!(ended("the_process_dies_when_told", &[("FAULTS", "call:cuMemFree_v2@3:kill")], body).code, -9);
}
