//! What is refused at load, and what stops a kernel.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::{Access, KernelFault, Launch, Module, PtxError};
use super::arena::Arena;
use super::{Parameters, Run, kernel};

fn refusal(body: &str) -> PtxError {
    Module::parse(&kernel(body)).expect_err("refused")
}

#[test]
fn what_is_missing_is_named_at_load() {
    let missing = [
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f1,%f2,%f3,%f4}, {%r1,%r2}, {%r3}, {%f1,%f2,%f3,%f4};",
        "tex.cube.v4.f32.f32 {%f1,%f2,%f3,%f4}, [%rd1, {%f5,%f6,%f7,%f7}];",
        "add.frob.u32 %r1, %r2, %r3;",
        "cp.async.ca.shared.global [%r1], [%rd1], 16;",
    ];
    for body in missing {
        let opcode = body.split(' ').next().unwrap_or_default();
        match Module::parse(&kernel(body)) {
            Err(PtxError::Unsupported { what, line }) => assert_eq!((what.as_str(), line), (opcode, 9)),
            other => panic!("{other:?} for {body}"),
        }
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    assert!(matches!(refusal("add.u32 %r1, %r2, %rd1;"), PtxError::Operand { line: 9, .. }));
    assert!(matches!(refusal("add.u32 %r1, %r2;"), PtxError::Operand { .. }));
    assert!(matches!(refusal("ld.global.u64 %r1, [%slot];"), PtxError::Operand { .. }));
    assert!(matches!(refusal("ld.param.u64 %rd1, [out+8];"), PtxError::Operand { .. }));
    assert!(matches!(
        refusal("tex.2d.v4.f32.f32 {%f1,%f2,%f3,%f4}, [%rd1, {%f5}];"),
        PtxError::Operand { .. }
    ));
    assert!(matches!(refusal("suld.b.1d.v2.b32.trap {%r1}, [%rd1, {%r2}];"), PtxError::Operand { .. }));
    assert!(matches!(refusal("sust.b.1d.b32.trap [%r1, {%r2}], {%r3};"), PtxError::Operand { .. }));
    assert!(matches!(refusal("mov.u32 %r1, nowhere;"), PtxError::UnknownName { .. }));
    assert!(matches!(refusal("bra NOWHERE;"), PtxError::UnknownName { .. }));
    assert!(matches!(refusal("call (%r1), printf, (%r2);"), PtxError::UnknownName { .. }));
    assert!(matches!(refusal("add.u32 %r1 %r2;"), PtxError::Syntax { .. }));
}

#[test]
fn recursion_is_refused() {
    let text = ".version 7.0 .target sm_75 .address_size 64\n.func f; .func g { call f; ret; } .func f { call g; ret; }\n\
        .visible .entry test() { call f; ret; }";
    assert_eq!(Module::parse(text).map(|_| ()), Err(PtxError::Recursion { name: "f".to_owned() }));
}

fn fault(body: &str, windows: bool) -> KernelFault {
    let text = kernel(body);
    let module = Module::parse(&text).expect("PTX parses");
    let mut arena = Arena::new(1 << 12);
    arena.windows = windows;
    let out = arena.put(&[0u64; 128]);
    Run::new(&module, "test", 2, 64).start(&arena, Parameters::default().pointer(out)).expect_err("a fault")
}

#[test]
fn a_bad_address_tells_thread_and_line() {
    for windows in [true, false] {
        let body = "setp.ne.u32 %p1, %tid, 37; @%p1 ret;\nld.global.u32 %r1, [%slot+0x10000];";
        let KernelFault::Memory { kernel, fault, position } = fault(body, windows) else {
            panic!("no memory fault")
        };
        assert_eq!((kernel.as_str(), fault.bytes, fault.access), ("test", 4, Access::Read));
        assert_eq!(fault.address, 0x7000_0000_0000 + 0x10000 + 37 * 16);
        assert_eq!((position.line, position.thread), (10, [37, 0, 0]));
    }
}

#[test]
fn accesses_outside_their_space_are_faults() {
    let memory = |body: &str| matches!(fault(body, true), KernelFault::Memory { .. });
    assert!(memory(".shared .b32 s[4]; st.shared.u32 [s+16], 1;"));
    assert!(memory(".local .b32 l[4]; ld.local.u32 %r1, [l+16];"));
    assert!(memory("st.global.u32 [0], 1;"));
    assert!(memory("atom.global.add.u32 %r1, [%out+0x7fffffff8], 1;"));
    assert!(memory("mov.u64 %rd1, -4; ld.u32 %r1, [%rd1];"));
    for (body, wanted) in [
        ("ld.global.u64 %rd1, [%slot+4];", 8),
        ("st.global.u32 [%slot+1], 1;", 4),
        ("atom.global.add.u32 %r1, [%slot+2], 1;", 4),
        ("red.global.add.u64 [%slot+4], 1;", 8),
        (".shared .b32 s[4]; atom.shared.add.u32 %r1, [s+2], 1;", 4),
    ] {
        let fault = fault(body, true);
        assert!(matches!(fault, KernelFault::Misaligned { bytes, .. } if bytes == wanted), "{body}: {fault}");
    }
}

#[test]
fn threads_that_wait_for_ever_are_found() {
    let deadlock = |body: &str| matches!(fault(body, true), KernelFault::Deadlock { .. });
    assert!(deadlock("setp.lt.u32 %p1, %tid, 32; @%p1 bra A; bar.sync 1; bra B; A: bar.sync 2; B:"));
    assert!(deadlock(
        "setp.lt.u32 %p1, %tid, 5; @%p1 bra A; bar.sync 0; bra B; A: shfl.sync.idx.b32 %r1, %r2, 0, 31, -1; B:"
    ));
}

#[test]
fn an_endless_kernel_can_be_cancelled() {
    let module = Module::parse(&kernel("L: bra L;")).expect("PTX parses");
    let mut arena = Arena::new(1 << 12);
    let parameters = Parameters::default().pointer(arena.put(&[0u64]));
    let cancel = AtomicBool::new(false);
    let launch = Launch {
        grid: [4, 1, 1],
        block: [64, 1, 1],
        multiprocessors: &[0],
        all_multiprocessors: 1,
        dynamic_shared_bytes: 0,
        parameters: &parameters.0,
        globals: &|_| None,
        memory: &arena,
        system: &arena,
        threads: 2,
        is_cooperative: false,
        cancel: &cancel,
    };
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            cancel.store(true, Ordering::Relaxed);
        });
        module.run(module.kernel("test").expect("the kernel"), &launch)
    });
    assert!(matches!(outcome, Err(KernelFault::Cancelled { .. })));
}

#[test]
fn launches_that_do_not_fit_are_refused() {
    let module = Module::parse(&kernel("")).expect("PTX parses");
    let arena = Arena::new(1 << 12);
    let refused = |run: &Run<'_>, parameters| {
        matches!(run.start(&arena, parameters), Err(KernelFault::InvalidLaunch { .. }))
    };
    let parameters = || Parameters::default().pointer(0);
    assert!(refused(&Run::new(&module, "test", 1, 1025), parameters()));
    assert!(refused(&Run::new(&module, "test", 0, 32), parameters()));
    assert!(refused(&Run::new(&module, "test", 1, 0), parameters()));
    assert!(refused(&Run::new(&module, "test", 1, 32), Parameters::default().int(0)));
    let mut run = Run::new(&module, "test", 1, 32);
    run.dynamic_shared_bytes = 1 << 20;
    assert!(refused(&run, parameters()));
    let text = ".version 7.0 .target sm_75 .address_size 64 .extern .global .u32 far;\n\
        .visible .entry test() { .reg .b64 %r; mov.u64 %r, far; ret; }";
    let module = Module::parse(text).expect("PTX parses");
    let outcome = Run::new(&module, "test", 1, 1).start(&arena, Parameters::default());
    assert!(matches!(outcome, Err(KernelFault::UnknownGlobal { symbol, .. }) if symbol == "far"));
}
