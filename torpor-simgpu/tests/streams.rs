//! Streams and events: order, asynchrony, stream 0, words in memory.

mod common;

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use common::*;

static GATE: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicU32 = AtomicU32::new(0);

extern "C" fn wait_for_gate(_: *mut c_void) {
    while !GATE.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_micros(100));
    }
}

extern "C" fn append_digit(digit: *mut c_void) {
    let digit = digit.addr() as u32;
    COUNT
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| Some(count * 10 + digit))
        .expect("always some");
}

fn append(stream: u64, digit: usize) {
    assert_eq!(cuLaunchHostFunc(stream, append_digit, std::ptr::without_provenance_mut(digit)), SUCCESS);
}

fn block(stream: u64) {
    assert_eq!(cuLaunchHostFunc(stream, wait_for_gate, std::ptr::null_mut()), SUCCESS);
}

#[test]
fn work_is_asynchronous_and_in_order() {
    passes("work_is_asynchronous_and_in_order", &[], || {
        use_device(0);
        let (stream, memory, host) = (stream(1), allocate(4096), pinned(4096));
        block(stream);
        assert_eq!(cuMemsetD32Async(memory, 5, 1024, stream), SUCCESS);
        assert_eq!(cuMemsetD32Async(memory + 4, 6, 1, stream), SUCCESS);
        assert_eq!(cuMemcpyDtoHAsync_v2(host as *mut c_void, memory, 4096, stream), SUCCESS);
        let marked = event();
        assert_eq!(cuEventRecord(marked, stream), SUCCESS);
        assert_eq!((cuStreamQuery(stream), cuEventQuery(marked)), (NOT_READY, NOT_READY));
        GATE.store(true, Ordering::SeqCst);
        assert_eq!(cuEventSynchronize(marked), SUCCESS);
        assert_eq!((cuStreamQuery(stream), cuEventQuery(marked)), (SUCCESS, SUCCESS));
        // SAFETY: the page-locked memory has 4096 bytes and the copy into it is complete.
        let words = unsafe { std::slice::from_raw_parts(host as *const u32, 3) };
        assert_eq!(words, [5, 6, 5]);
    });
}

#[test]
fn events_order_streams() {
    passes("events_order_streams", &[], || {
        use_device(0);
        let (first, second, marked) = (stream(1), stream(1), event());
        block(first);
        append(first, 1);
        assert_eq!(cuEventRecord(marked, first), SUCCESS);
        assert_eq!(cuStreamWaitEvent(second, marked, 0), SUCCESS);
        append(second, 2);
        assert_eq!(cuStreamQuery(second), NOT_READY);
        GATE.store(true, Ordering::SeqCst);
        assert_eq!(cuCtxSynchronize(), SUCCESS);
        assert_eq!(COUNT.load(Ordering::SeqCst), 12);
        // A wait for an event that was never recorded waits for nothing.
        assert_eq!(cuStreamWaitEvent(second, event(), 0), SUCCESS);
        assert_eq!(cuStreamSynchronize(second), SUCCESS);
    });
}

#[test]
fn stream_zero_waits_for_blocking_streams_only() {
    passes("stream_zero_waits_for_blocking_streams_only", &[], || {
        use_device(0);
        let (blocking, free) = (stream(0), stream(1));
        block(blocking);
        append(blocking, 1);
        append(0, 2);
        append(blocking, 3);
        append(free, 4);
        assert_eq!(cuStreamSynchronize(free), SUCCESS, "not held up");
        assert_eq!(COUNT.load(Ordering::SeqCst), 4);
        assert_eq!(cuStreamQuery(0), NOT_READY);
        GATE.store(true, Ordering::SeqCst);
        assert_eq!(cuCtxSynchronize(), SUCCESS);
        assert_eq!(COUNT.load(Ordering::SeqCst), 4123);
    });
}

#[test]
fn streams_wait_for_words() {
    passes("streams_wait_for_words", &[], || {
        use_device(0);
        let (first, second, flags) = (stream(1), stream(1), pinned(4096));
        // SAFETY: page-locked memory of 4096 bytes, only used as atomic words.
        let words = unsafe { std::slice::from_raw_parts(flags as *const AtomicU32, 4) };
        assert_eq!(cuStreamWaitValue32_v2(first, flags, 3, 0), SUCCESS);
        append(first, 1);
        assert_eq!(cuStreamWriteValue32_v2(first, flags + 4, 9, 0), SUCCESS);
        assert_eq!(cuStreamWaitValue32_v2(second, flags + 4, 9, 1), SUCCESS);
        append(second, 2);
        words[0].store(2, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(COUNT.load(Ordering::SeqCst), 0);
        words[0].store(4, Ordering::SeqCst);
        assert_eq!(cuCtxSynchronize(), SUCCESS);
        assert_eq!((COUNT.load(Ordering::SeqCst), words[1].load(Ordering::SeqCst)), (12, 9));
        assert_eq!(cuStreamWriteValue32_v2(first, flags + 2, 0, 0), INVALID_VALUE, "misaligned");
        assert_eq!(cuStreamWriteValue32_v2(first, 0x1234, 0, 0), INVALID_VALUE, "nobody's memory");
        assert_eq!(cuStreamWriteValue64_v2(first, flags + 8, 3 << 32 | 5, 0), SUCCESS);
        assert_eq!(cuCtxSynchronize(), SUCCESS);
        assert_eq!([2, 3].map(|at: usize| words[at].load(Ordering::SeqCst)), [5, 3]);
        assert_eq!(cuStreamWriteValue64_v2(first, flags + 4, 0, 0), INVALID_VALUE, "misaligned");
    });
}

#[test]
fn pageable_memory_may_be_reused_at_once() {
    passes("pageable_memory_may_be_reused_at_once", &[], || {
        use_device(0);
        let (stream, memory) = (stream(1), allocate(MIB));
        for bytes in [1000, MIB] {
            let mut source = vec![7_u8; bytes];
            assert_eq!(cuMemcpyHtoDAsync_v2(memory, source.as_ptr().cast(), bytes, stream), SUCCESS);
            source.fill(8);
            let mut target = vec![0_u8; bytes];
            assert_eq!(cuMemcpyDtoHAsync_v2(target.as_mut_ptr().cast(), memory, bytes, stream), SUCCESS);
            assert!(target.iter().all(|&byte| byte == 7), "complete when the call returns");
        }
    });
}

#[test]
fn many_threads_use_many_streams() {
    passes("many_threads_use_many_streams", &[], || {
        let context = use_device(0);
        std::thread::scope(|scope| {
            for thread in 0..8_u32 {
                scope.spawn(move || {
                    assert_eq!(cuStreamQuery(0), INVALID_CONTEXT, "contexts are current for a thread");
                    assert_eq!(cuCtxSetCurrent(context), SUCCESS);
                    for round in 0..50 {
                        let (stream, memory) = (stream(thread % 2), allocate(1 << 16));
                        assert_eq!(cuMemsetD32Async(memory, thread * 1000 + round, 1 << 14, stream), SUCCESS);
                        assert_eq!(cuStreamSynchronize(stream), SUCCESS);
                        assert_eq!(get::<u32>(memory + 400, 1), [thread * 1000 + round]);
                        assert_eq!(cuStreamDestroy_v2(stream), SUCCESS);
                        assert_eq!(cuStreamQuery(stream), INVALID_HANDLE);
                        assert_eq!(cuMemFree_v2(memory), SUCCESS);
                    }
                });
            }
        });
    });
}

#[test]
fn a_destroyed_stream_finishes_its_work() {
    passes("a_destroyed_stream_finishes_its_work", &[], || {
        use_device(0);
        let (stream, marked) = (stream(1), event());
        block(stream);
        append(stream, 7);
        assert_eq!(cuEventRecord(marked, stream), SUCCESS);
        assert_eq!(cuStreamDestroy_v2(stream), SUCCESS);
        GATE.store(true, Ordering::SeqCst);
        assert_eq!(cuEventSynchronize(marked), SUCCESS);
        assert_eq!(COUNT.load(Ordering::SeqCst), 7);
    });
}
