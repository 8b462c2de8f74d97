//! Time: what events tell in virtual and in real time.

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use common::*;

/// `CU_STREAM_WAIT_VALUE_EQ`.
const EQUAL: u32 = 1;

fn between(start: u64, end: u64) -> f32 {
    let mut milliseconds = -1.0;
    assert_eq!(cuEventElapsedTime_v2(&mut milliseconds, start, end), SUCCESS);
    milliseconds
}

/// Copies `bytes` to a device on each stream, and gives the time of each and of all.
fn time_copies(streams: &[u64], bytes: usize) -> (Vec<f32>, f32) {
    let (memory, host) = (allocate(bytes), pinned(bytes));
    let marks: Vec<(u64, u64)> = streams.iter().map(|_| (event(), event())).collect();
    for (&stream, &(start, end)) in streams.iter().zip(&marks) {
        assert_eq!(cuEventRecord(start, stream), SUCCESS);
        assert_eq!(cuMemcpyHtoDAsync_v2(memory, host as *const _, bytes, stream), SUCCESS);
        assert_eq!(cuEventRecord(end, stream), SUCCESS);
    }
    assert_eq!(cuCtxSynchronize(), SUCCESS);
    let each = marks.iter().map(|&(start, end)| between(start, end)).collect();
    let last = marks.iter().map(|mark| between(marks[0].0, mark.1)).fold(0.0, f32::max);
    (each, last)
}

#[test]
fn virtual_time_is_that_of_the_profile() {
    passes("virtual_time_is_that_of_the_profile", &[], || {
        use_device(0);
        // 64 MiB at 55.2 GB/s, and 2.5 µs.
        let (each, _) = time_copies(&[stream(1)], 64 * MIB);
        assert!((each[0] - 1.2182).abs() < 0.001, "{each:?}");
        // Two streams share the link.
        let (_, all) = time_copies(&[stream(1), stream(1)], 64 * MIB);
        assert!((all - 2.0 * 1.2182).abs() < 0.002, "{all}");
        let (never, plain) = (event(), event());
        let mut milliseconds = 0.0;
        assert_eq!(cuEventElapsedTime_v2(&mut milliseconds, never, plain), INVALID_HANDLE, "not recorded");
    });
}

#[test]
fn devices_copy_at_the_same_time() {
    passes("devices_copy_at_the_same_time", &[("DEVICES", "3"), ("PROFILE", "v100-pcie3")], || {
        // Devices 0 and 1 share a link, 0 and 2 do not. 12 MB at 12 GB/s take 1 ms.
        let bytes = 12_000_000;
        let run = |devices: [i32; 2]| {
            let mut last = 0.0_f32;
            let marks = devices.map(|device| {
                use_device(device);
                (event(), event(), stream(1), allocate(bytes), pinned(bytes))
            });
            for (device, &(start, end, stream, memory, host)) in devices.iter().zip(&marks) {
                use_device(*device);
                assert_eq!(cuEventRecord(start, stream), SUCCESS);
                assert_eq!(cuMemcpyHtoDAsync_v2(memory, host as *const _, bytes, stream), SUCCESS);
                assert_eq!(cuEventRecord(end, stream), SUCCESS);
            }
            for &(start, end, ..) in &marks {
                assert_eq!(cuEventSynchronize(end), SUCCESS);
                last = last.max(between(start, end));
            }
            last
        };
        let (shared, own) = (run([0, 1]), run([0, 2]));
        assert!((own - 1.0).abs() < 0.05, "{own}");
        assert!((shared - 2.0).abs() < 0.05, "{shared}");
    });
}

#[test]
fn real_time_lasts_as_long_as_it_says() {
    let environment = [("TIME", "real"), ("PROFILE", "small:host_gbps=0.1")];
    passes("real_time_lasts_as_long_as_it_says", &environment, || {
        use_device(0);
        let began = Instant::now();
        // 2 MB at 0.1 GB/s take 20 ms.
        let (each, _) = time_copies(&[stream(1)], 2_000_000);
        assert!((20.0..60.0).contains(&each[0]), "{each:?}");
        assert!(began.elapsed().as_millis() >= 20);
    });
}

/// Copies 1 MB four times on one stream, the last two behind `between_them`, and once on another stream, ready when the first
/// of the four is done. How much later than the start each of the five is done, the other stream's last.
fn compete(between_them: impl Fn(u64, u64)) -> [f32; 5] {
    let bytes = 1_000_000;
    let (memory, host, gate) = (allocate(bytes), pinned(bytes), pinned(4));
    let (stream, other) = (stream(1), stream(1));
    let (start, done) = (event(), [(); 5].map(|()| event()));
    let copy = |stream| assert_eq!(cuMemcpyHtoDAsync_v2(memory, host as *const _, bytes, stream), SUCCESS);
    let word = gate as *mut u32;
    // SAFETY: four page-locked bytes, which nobody else uses yet.
    unsafe { word.write(0) };
    assert_eq!(cuStreamWaitValue32_v2(stream, gate, 1, EQUAL), SUCCESS);
    assert_eq!(cuEventRecord(start, stream), SUCCESS);
    for (at, &mark) in done[..4].iter().enumerate() {
        if at == 2 {
            between_them(stream, done[4]);
        }
        copy(stream);
        assert_eq!(cuEventRecord(mark, stream), SUCCESS);
        if at == 0 {
            assert_eq!(cuStreamWaitEvent(other, mark, 0), SUCCESS);
            copy(other);
            assert_eq!(cuEventRecord(done[4], other), SUCCESS);
        }
    }
    // SAFETY: an aligned word that the stream only reads.
    unsafe { AtomicU32::from_ptr(word) }.store(1, Ordering::Release);
    assert_eq!(cuCtxSynchronize(), SUCCESS);
    done.map(|mark| between(start, mark))
}

/// Whether the times rise.
fn rise(times: &[f32]) -> bool {
    times.is_sorted_by(|earlier, later| earlier < later)
}

fn a_copy_engine_serves_one_stream_as_long_as_it_has_work() {
    use_device(0);
    let [first, second, third, fourth, other] = compete(|_, _| {});
    assert!(rise(&[first, second, third, fourth, other]), "it waits for all: {other} of {fourth} ms");
    let [first, second, third, fourth, other] = compete(|stream, other_done| {
        assert_eq!(cuStreamWaitEvent(stream, other_done, 0), SUCCESS);
    });
    assert!(
        rise(&[first, second, other, third, fourth]),
        "its turn comes when the first one waits: {other} ms"
    );
}

#[test]
fn a_copy_engine_stays_with_a_stream_in_virtual_time() {
    passes(
        "a_copy_engine_stays_with_a_stream_in_virtual_time",
        &[],
        a_copy_engine_serves_one_stream_as_long_as_it_has_work,
    );
}

#[test]
fn a_copy_engine_stays_with_a_stream_in_real_time() {
    let environment = [("TIME", "real"), ("PROFILE", "small:host_gbps=0.2")];
    passes(
        "a_copy_engine_stays_with_a_stream_in_real_time",
        &environment,
        a_copy_engine_serves_one_stream_as_long_as_it_has_work,
    );
}
