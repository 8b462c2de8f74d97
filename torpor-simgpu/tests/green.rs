//! Green contexts: how a device is split, where kernels run, and which streams wait for which.

mod common;

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::*;

const INVALID_CONTEXT: i32 = 201;
const CONTEXT_IS_DESTROYED: i32 = 709;
const INVALID_RESOURCE_TYPE: i32 = 914;
const INVALID_RESOURCE_CONFIGURATION: i32 = 915;

static GATE: AtomicBool = AtomicBool::new(false);

extern "C" fn wait_for_gate(_: *mut c_void) {
    while !GATE.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_micros(100));
    }
}

const WHERE: &str = "
.version 7.0
.target sm_70
.address_size 64
.visible .entry where(.param .u64 place)
{
    .reg .b32 %r<4>;
    .reg .b64 %d<4>;
    ld.param.u64 %d1, [place];
    mov.u32 %r1, %ctaid.x;
    mul.wide.u32 %d2, %r1, 8;
    add.s64 %d3, %d1, %d2;
    mov.u32 %r2, %smid;
    mov.u32 %r3, %nsmid;
    st.global.v2.u32 [%d3], {%r2, %r3};
    ret;
}
";

fn whole() -> Resource {
    let mut resource = Resource::default();
    assert_eq!(cuDeviceGetDevResource(0, &mut resource, 1), SUCCESS);
    resource
}

/// Groups of at least so many multiprocessors, and what remains.
fn split<const N: usize>(
    of: &Resource,
    flags: u32,
    least: u32,
) -> Result<([Resource; N], u32, Resource), i32> {
    let (mut found, mut count, mut rest) = ([Resource::default(); N], N as u32, Resource::default());
    match cuDevSmResourceSplitByCount(found.as_mut_ptr(), &mut count, of, &mut rest, flags, least) {
        SUCCESS => Ok((found, count, rest)),
        code => Err(code),
    }
}

fn describe(parts: &[Resource]) -> Result<u64, i32> {
    let (mut parts, mut description) = (parts.to_vec(), 0);
    match cuDevResourceGenerateDesc(&mut description, parts.as_mut_ptr(), parts.len() as u32) {
        SUCCESS => Ok(description),
        code => Err(code),
    }
}

fn green(parts: &[Resource]) -> u64 {
    let mut green = 0;
    assert_eq!(cuGreenCtxCreate(&mut green, describe(parts).expect("parts"), 0, 1), SUCCESS);
    green
}

fn stream_of(green: u64) -> u64 {
    let mut stream = 0;
    assert_eq!(cuGreenCtxStreamCreate(&mut stream, green, 1, 0), SUCCESS);
    stream
}

#[test]
fn a_device_is_split_as_its_architecture_wants() {
    passes("a_device_is_split_as_its_architecture_wants", &[], || {
        use_device(0);
        let whole = whole();
        assert_eq!((whole.kind, whole.count, whole.least, whole.alignment), (1, 132, 8, 8));
        let (groups, count, rest) = split::<3>(&whole, 0, 9).expect("there are so many");
        assert_eq!((groups.map(|group| group.count), count, rest.count), ([16; 3], 3, 84));
        assert_eq!(split::<40>(&whole, 0, 1).map(|(_, count, rest)| (count, rest.count)), Ok((16, 4)));
        assert_eq!(split::<1>(&whole, 1, 3).map(|(groups, ..)| groups[0].count), Ok(4));
        assert_eq!(split::<1>(&whole, 0, 133).err(), Some(INVALID_RESOURCE_CONFIGURATION));
        assert_eq!(split::<1>(&whole, 4, 8).err(), Some(INVALID_VALUE));
        assert_eq!(split::<1>(&groups[0], 0, 8).err(), Some(INVALID_RESOURCE_CONFIGURATION));
        assert_eq!(split::<1>(&Resource::default(), 0, 0).err(), Some(INVALID_RESOURCE_TYPE));
        let (others, ..) = split::<1>(&whole, 0, 9).expect("again");
        assert_eq!(describe(&[groups[0], others[0]]), Err(INVALID_RESOURCE_CONFIGURATION), "of two splits");
        let mut of_both = Resource::default();
        assert_eq!(cuGreenCtxGetDevResource(green(&groups[..2]), &mut of_both, 1), SUCCESS);
        assert_eq!(of_both.count, 32);
        assert_eq!(split::<4>(&of_both, 0, 8).map(|(_, count, rest)| (count, rest.kind)), Ok((4, 0)));
    });
}

#[test]
fn kernels_run_on_the_multiprocessors_of_their_context() {
    passes("kernels_run_on_the_multiprocessors_of_their_context", &[], || {
        use_device(0);
        let (groups, _, rest) = split::<2>(&whole(), 0, 16).expect("two groups");
        let [second, outer] = [green(&groups[1..]), green(&[groups[0], rest])];
        let function = function(module(WHERE).expect("it compiles"), c"where");
        let memory = allocate(8 * 132);
        let mut context = 0;
        assert_eq!(cuCtxFromGreenCtx(&mut context, second), SUCCESS);
        let seen = |stream| {
            assert_eq!(launch(function, 132, 1, stream, &[memory]), SUCCESS);
            assert_eq!(cuCtxSynchronize(), SUCCESS);
            let mut seen: Vec<[u32; 2]> = get(memory, 132);
            seen.sort_unstable();
            seen.dedup();
            assert!(seen.iter().all(|&[_, all]| all == 132));
            seen.into_iter().map(|[number, _]| number).collect::<Vec<_>>()
        };
        assert_eq!(seen(stream_of(second)), Vec::from_iter(16..32));
        assert_eq!(seen(stream_of(outer)), Vec::from_iter((0..16).chain(32..132)));
        assert_eq!(seen(0), Vec::from_iter(0..132));
        assert_eq!(cuCtxSetCurrent(context), SUCCESS);
        assert_eq!(seen(0), Vec::from_iter(16..32), "its default stream");
    });
}

#[test]
fn a_green_context_is_ordered_and_ended_by_itself() {
    passes("a_green_context_is_ordered_and_ended_by_itself", &[], || {
        let primary = use_device(0);
        let green = green(&split::<1>(&whole(), 0, 8).expect("one group").0);
        let (mut context, mut of) = (0, 0);
        assert_eq!(cuCtxFromGreenCtx(&mut context, green), SUCCESS);
        assert_eq!(cuCtxSetCurrent(green), INVALID_CONTEXT, "it is none before it is converted");
        assert_eq!(cuLaunchHostFunc(0, wait_for_gate, std::ptr::null_mut()), SUCCESS);
        assert_eq!(cuCtxSetCurrent(context), SUCCESS);
        let own = stream(0);
        assert_eq!((cuStreamGetGreenCtx(own, &mut of), of), (SUCCESS, green));
        let memory = allocate(64);
        assert_eq!(cuMemsetD32Async(memory, 7, 16, own), SUCCESS);
        assert_eq!(
            cuCtxSynchronize(),
            SUCCESS,
            "the device's default stream is busy, and nobody waits for it"
        );
        // What the green context waits for comes before its later work, and its work before its event.
        let (before, after) = (event(), event());
        assert_eq!(cuCtxSetCurrent(primary), SUCCESS);
        assert_eq!(cuEventRecord(before, 0), SUCCESS);
        assert_eq!(cuGreenCtxWaitEvent(green, before), SUCCESS);
        assert_eq!(cuMemsetD32Async(memory, 8, 16, own), SUCCESS);
        assert_eq!(cuGreenCtxRecordEvent(green, after), SUCCESS);
        assert_eq!(cuEventQuery(after), NOT_READY);
        GATE.store(true, Ordering::SeqCst);
        assert_eq!(cuEventSynchronize(after), SUCCESS);
        assert_eq!(get::<u32>(memory, 16), [8; 16]);
        assert_eq!((cuGreenCtxDestroy(green), cuGreenCtxDestroy(green)), (SUCCESS, INVALID_CONTEXT));
        assert_eq!((cuStreamQuery(own), cuCtxSetCurrent(context)), (CONTEXT_IS_DESTROYED, INVALID_CONTEXT));
        assert_eq!(cuCtxSynchronize(), SUCCESS);
    });
}
