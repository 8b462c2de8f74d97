//! Checks that hardware does not make: what they report, and that sound programs are left alone.

mod common;

use std::sync::atomic::{AtomicU32, Ordering};

use common::*;

const KERNELS: &str = "
.version 8.0
.target sm_70
.address_size 64
.visible .entry load(.param .u64 pointer, .param .u64 target) {
    .reg .u32 %r<2>;
    .reg .u64 %rd<3>;
    ld.param.u64 %rd1, [pointer];
    ld.param.u64 %rd2, [target];
    ld.global.u32 %r1, [%rd1];
    st.global.u32 [%rd2], %r1;
    ret;
}
.visible .entry wait_for(.param .u64 pointer, .param .u64 target) {
    .reg .u64 %rd<2>;
    .reg .u32 %r<2>;
    .reg .pred %p<2>;
    ld.param.u64 %rd1, [pointer];
AGAIN:
    ld.volatile.global.u32 %r1, [%rd1];
    setp.eq.u32 %p1, %r1, 0;
    @%p1 bra AGAIN;
    ret;
}
";

fn load() -> u64 {
    function(module(KERNELS).expect("PTX"), c"load")
}

#[test]
fn memory_that_was_never_written_is_reported() {
    let ended = passes("memory_that_was_never_written_is_reported", &[("CHECKS", "uninitialised")], || {
        use_device(0);
        let (load, memory) = (load(), allocate(4096));
        put(memory, &[1_u32; 16]);
        assert_eq!(launch(load, 1, 1, 0, &[memory + 60, memory + 100]), SUCCESS);
        assert_eq!(
            launch(load, 1, 1, 0, &[memory + 100, memory + 200]),
            SUCCESS,
            "written by the kernel before"
        );
        assert_eq!(cuMemcpyDtoDAsync_v2(memory + 300, memory, 128, 0), SUCCESS, "passing on is no use");
        assert_eq!(launch(load, 1, 1, 0, &[memory + 300 + 60, memory + 200]), SUCCESS, "copied and written");
        assert_eq!(cuCtxSynchronize(), SUCCESS);
        assert_eq!(
            launch(load, 1, 1, 0, &[memory + 300 + 64, memory + 200]),
            SUCCESS,
            "copied, never written"
        );
        get::<u8>(memory + 1000, 1);
    });
    assert_eq!(ended.log_lines("check uninitialised: kernel load"), 1, "{}", ended.log);
    assert_eq!(ended.log_lines("check uninitialised: a copy"), 1, "{}", ended.log);
    assert_eq!(ended.log_lines("byte 364 of 4096"), 1, "{}", ended.log);
}

#[test]
fn a_kernel_that_does_not_wait_for_its_data_is_reported() {
    let ended =
        passes("a_kernel_that_does_not_wait_for_its_data_is_reported", &[("CHECKS", "unordered")], || {
            use_device(0);
            let (load, memory, host) = (load(), allocate(4096), pinned(4096));
            let (copying, computing, done) = (stream(1), stream(1), event());
            let target = memory + 2048;
            let copy = |offset: u64| {
                assert_eq!(cuMemcpyHtoDAsync_v2(memory + offset, host as *const _, 64, copying), SUCCESS);
            };
            // Right: the kernel waits for the copy's event.
            copy(0);
            assert_eq!(cuEventRecord(done, copying), SUCCESS);
            copy(64);
            assert_eq!(cuStreamWaitEvent(computing, done, 0), SUCCESS);
            assert_eq!(launch(load, 1, 1, computing, &[memory, target]), SUCCESS);
            // Right: a copy over it that waits for the kernel.
            assert_eq!(cuEventRecord(done, computing), SUCCESS);
            assert_eq!(cuStreamWaitEvent(copying, done, 0), SUCCESS);
            copy(0);
            // Right: the host waited.
            copy(128);
            assert_eq!(cuStreamSynchronize(copying), SUCCESS);
            assert_eq!(launch(load, 1, 1, computing, &[memory + 128, target]), SUCCESS);
            assert_eq!(cuCtxSynchronize(), SUCCESS);
            // Wrong, though the copy may well have been faster.
            copy(192);
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert_eq!(launch(load, 1, 1, computing, &[memory + 192, target]), SUCCESS);
            assert_eq!(cuCtxSynchronize(), SUCCESS);
        });
    assert_eq!(ended.log_lines("check unordered"), 1, "{}", ended.log);
    assert_eq!(ended.log_lines("byte 192 of 4096"), 1, "{}", ended.log);
}

#[test]
fn stream_0_and_blocking_streams_are_ordered_even_if_the_earlier_is_done() {
    let name = "stream_0_and_blocking_streams_are_ordered_even_if_the_earlier_is_done";
    let ended = passes(name, &[("CHECKS", "unordered")], || {
        use_device(0);
        let (load, memory, blocking) = (load(), allocate(4096), stream(0));
        for (first, second, offset) in [(0, blocking, 0), (blocking, 0, 64)] {
            assert_eq!(cuMemsetD32Async(memory + offset, 1, 16, first), SUCCESS);
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert_eq!(launch(load, 1, 1, second, &[memory + offset, memory + 2048]), SUCCESS);
            assert_eq!(cuCtxSynchronize(), SUCCESS);
        }
    });
    assert_eq!(ended.log_lines("check "), 0, "{}", ended.log);
}

/// Waits as a host does that polls a word.
fn poll(word: u64, value: u32) {
    let word = std::ptr::with_exposed_provenance_mut(word as usize);
    // SAFETY: an aligned word in page-locked memory of the test, used as an atomic only.
    let word = unsafe { AtomicU32::from_ptr(word) };
    while word.load(Ordering::Acquire) != value {
        std::thread::yield_now();
    }
}

#[test]
fn a_word_that_the_host_polls_is_order() {
    let ended = passes("a_word_that_the_host_polls_is_order", &[("CHECKS", "unordered")], || {
        use_device(0);
        let (load, memory, host) = (load(), allocate(4096), pinned(4096));
        let (copying, computing, done) = (stream(1), stream(1), event());
        let target = memory + 2048;
        // The word tells of a copy before it in its own stream.
        assert_eq!(cuMemcpyHtoDAsync_v2(memory, host as *const _, 64, copying), SUCCESS);
        assert_eq!(cuStreamWriteValue32_v2(copying, host + 1024, 1, 0), SUCCESS);
        poll(host + 1024, 1);
        assert_eq!(launch(load, 1, 1, computing, &[memory, target]), SUCCESS);
        // And of what that stream waited for: the word is stored by a third one.
        let telling = stream(1);
        assert_eq!(cuMemsetD32Async(memory + 64, 1, 16, copying), SUCCESS);
        assert_eq!(cuEventRecord(done, copying), SUCCESS);
        assert_eq!(cuStreamWaitEvent(telling, done, 0), SUCCESS);
        assert_eq!(cuStreamWriteValue32_v2(telling, host + 1024, 2, 0), SUCCESS);
        poll(host + 1024, 2);
        // A thread that is told by the one that polled.
        std::thread::spawn(move || {
            use_device(0);
            assert_eq!(launch(load, 1, 1, computing, &[memory + 64, target]), SUCCESS);
        })
        .join()
        .expect("the launch succeeds");
        assert_eq!(cuCtxSynchronize(), SUCCESS);
    });
    assert_eq!(ended.log_lines("check "), 0, "{}", ended.log);
}

#[test]
fn a_word_tells_nothing_of_other_streams_or_later_work() {
    let name = "a_word_tells_nothing_of_other_streams_or_later_work";
    let ended = passes(name, &[("CHECKS", "unordered")], || {
        use_device(0);
        let (load, memory, host) = (load(), allocate(4096), pinned(4096));
        let (copying, computing, other) = (stream(1), stream(1), stream(1));
        let (word, gate, target) = (host + 1024, host + 1028, memory + 2048);
        let copy = |offset: u64| {
            assert_eq!(cuMemcpyHtoDAsync_v2(memory + offset, host as *const _, 64, copying), SUCCESS);
        };
        let read = |offset: u64| {
            assert_eq!(launch(load, 1, 1, computing, &[memory + offset, target]), SUCCESS);
            assert_eq!(cuStreamSynchronize(computing), SUCCESS);
        };
        // A stream that has nothing to do with the copy.
        copy(0);
        assert_eq!(cuStreamWriteValue32_v2(other, word, 1, 0), SUCCESS);
        poll(word, 1);
        read(0);
        // A copy behind the word.
        assert_eq!(cuStreamWriteValue32_v2(copying, word, 2, 0), SUCCESS);
        copy(64);
        poll(word, 2);
        read(64);
        // A kernel that is issued, and here even runs, before the word is stored.
        assert_eq!(cuStreamWaitValue32_v2(copying, gate, 1, 1), SUCCESS);
        copy(128);
        assert_eq!(cuStreamWriteValue32_v2(copying, word, 3, 0), SUCCESS);
        read(128);
        assert_eq!(cuStreamWriteValue32_v2(other, gate, 1, 0), SUCCESS);
        poll(word, 3);
        // The kernel waits in its stream while the copy arrives and the word is stored.
        assert_eq!(cuStreamWaitValue32_v2(computing, gate, 2, 1), SUCCESS);
        copy(192);
        assert_eq!(launch(load, 1, 1, computing, &[memory + 192, target]), SUCCESS);
        assert_eq!(cuStreamWriteValue32_v2(copying, word, 4, 0), SUCCESS);
        poll(word, 4);
        assert_eq!(cuStreamWriteValue32_v2(other, gate, 2, 0), SUCCESS);
        assert_eq!(cuCtxSynchronize(), SUCCESS);
    });
    for offset in [0, 64, 128, 192] {
        assert_eq!(ended.log_lines(&format!("byte {offset} of 4096")), 1, "{}", ended.log);
    }
    assert_eq!(ended.log_lines("check unordered"), 4, "{}", ended.log);
}

#[test]
fn bytes_behind_the_end_are_reported() {
    let ended = passes("bytes_behind_the_end_are_reported", &[("CHECKS", "bounds")], || {
        use_device(0);
        let (load, memory, target) = (load(), allocate(100), allocate(64));
        for offset in [96, 100] {
            assert_eq!(launch(load, 1, 1, 0, &[memory + offset, target]), SUCCESS);
            assert_eq!(cuCtxSynchronize(), SUCCESS, "hardware would not notice");
        }
    });
    assert_eq!(
        (ended.log_lines("check bounds"), ended.log_lines("byte 100 of 100")),
        (1, 1),
        "{}",
        ended.log
    );
}

#[test]
fn freed_memory_is_not_handed_out_again() {
    let ended = passes("freed_memory_is_not_handed_out_again", &[("CHECKS", "freed")], || {
        use_device(0);
        let (load, memory, target) = (load(), allocate(4096), allocate(64));
        assert_eq!(cuMemFree_v2(memory), SUCCESS);
        let next: Vec<u64> = (0..4).map(|_| allocate(4096)).collect();
        assert!(!next.contains(&memory));
        assert_eq!(launch(load, 1, 1, 0, &[memory, target]), SUCCESS);
        assert_eq!(cuCtxSynchronize(), ILLEGAL_ADDRESS);
    });
    assert_eq!(ended.log_lines("the memory there was freed"), 1, "{}", ended.log);
}

#[test]
fn memory_of_a_running_kernel_is_missed() {
    let ended = passes("memory_of_a_running_kernel_is_missed", &[("CHECKS", "busy")], || {
        use_device(0);
        let mut window = 0;
        assert_eq!(cuMemAddressReserve(&mut window, 64 * MIB, 0, 0, 0), SUCCESS);
        map(window, 2 * MIB, 0);
        let other = window + 2 * MIB as u64;
        map(other, 2 * MIB, 0);
        put(window, &[0_u32]);
        let (endless, wait_for) = (stream(1), function(module(KERNELS).expect("PTX"), c"wait_for"));
        assert_eq!(launch(wait_for, 1, 1, endless, &[window, 0]), SUCCESS);
        assert_eq!(cuMemUnmap(other, 2 * MIB), SUCCESS, "nobody uses it");
        while cuStreamQuery(endless) != NOT_READY {}
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(cuMemUnmap(window, 2 * MIB), SUCCESS);
        // The kernel goes on in memory that only it can still see; the process does not crash.
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(cuStreamQuery(endless), NOT_READY);
        assert_eq!(launch(wait_for, 1, 1, stream(1), &[window, 0]), SUCCESS);
        assert_eq!(cuStreamSynchronize(endless), ILLEGAL_ADDRESS, "the later one faults");
    });
    assert_eq!(ended.log_lines("check busy"), 1, "{}", ended.log);
    assert_eq!(ended.log_lines("while kernel wait_for"), 1, "{}", ended.log);
}

#[test]
fn memory_that_only_a_captured_kernel_names_is_not_missed() {
    let ended = passes("memory_that_only_a_captured_kernel_names_is_not_missed", &[("CHECKS", "busy")], || {
        use_device(0);
        let mut window = 0;
        assert_eq!(cuMemAddressReserve(&mut window, 64 * MIB, 0, 0, 0), SUCCESS);
        map(window, 2 * MIB, 0);
        let (captured, load) = (stream(1), load());
        assert_eq!(cuStreamBeginCapture_v2(captured, 0), SUCCESS);
        assert_eq!(launch(load, 1, 1, captured, &[window, window + 64]), SUCCESS);
        let mut graph = 0;
        assert_eq!(cuStreamEndCapture(captured, &mut graph), SUCCESS);
        assert_eq!(cuMemUnmap(window, 2 * MIB), SUCCESS);
    });
    assert_eq!(ended.log_lines("check busy"), 0, "{}", ended.log);
}

#[test]
fn destroyed_streams_and_events_are_named() {
    let ended = passes("destroyed_streams_and_events_are_named", &[("CHECKS", "streams")], || {
        use_device(0);
        let (stream, event) = (stream(1), event());
        assert_eq!((cuStreamDestroy_v2(stream), cuEventDestroy_v2(event)), (SUCCESS, SUCCESS));
        assert_eq!(cuStreamQuery(stream), INVALID_HANDLE);
        assert_eq!(cuEventQuery(event), INVALID_HANDLE);
        assert_eq!(cuStreamQuery(0x1234_5678), INVALID_HANDLE);
    });
    assert_eq!(ended.log_lines("after it was destroyed"), 2, "{}", ended.log);
}

#[test]
fn a_sound_program_passes_all_checks() {
    let ended = passes("a_sound_program_passes_all_checks", &[("CHECKS", "all")], || {
        use_device(0);
        let (load, memory, stream) = (load(), allocate(4096), stream(1));
        let values: Vec<u32> = (0..16).collect();
        put(memory, &values);
        for index in 0..16 {
            assert_eq!(launch(load, 1, 1, stream, &[memory + 4 * index, memory + 1024 + 4 * index]), SUCCESS);
        }
        assert_eq!(cuStreamSynchronize(stream), SUCCESS);
        assert_eq!(get::<u32>(memory + 1024, 16), values);
        assert_eq!(cuMemFree_v2(memory), SUCCESS);
    });
    assert_eq!(ended.log_lines("check "), 0, "{}", ended.log);
}
