//! `cuda/features.cu`: calls, divergence, local memory, barriers, locks.

use super::super::{KernelFault, Module, PtxError};
use super::arena::Arena;
use super::{Parameters, Run, kernel};

fn module() -> Module {
    Module::parse(include_str!("cuda/features.ptx")).expect("PTX parses")
}

#[test]
fn structs_by_value_through_calls_that_diverge() {
    let module = module();
    let mut arena = Arena::new(1 << 12);
    let y = arena.put(&[0f32; 64]);
    let v = [1.5f32, -2.0, 0.25, 3.0, -0.75, 8.0];
    let parameters = v.iter().fold(Parameters::default(), |parameters, &value| parameters.float(value));
    Run::new(&module, "calls", 1, 64).run(&arena, parameters.int(3).pointer(y));
    let helper = |a: f32, k: i32| (0..k).fold(a, |sum, _| sum * 0.5 + a);
    let expected: Vec<f32> = (0..64i32)
        .map(|i| {
            let (a, k) = (v[i as usize % 6], i % 5 + 3);
            let made: Vec<f32> = (0..6).map(|index| helper(a, index + k)).collect();
            let sum = (0..6).fold(0f32, |sum, j| sum + made[(j + i) as usize % 6] * j as f32);
            sum + k as f32
        })
        .collect();
    assert_eq!(arena.get::<f32>(y, 64), expected);
    assert!(module.kernel("calls").expect("the kernel").local_bytes >= 28);
}

#[test]
fn switches_over_lanes() {
    let module = module();
    let mut arena = Arena::new(1 << 12);
    let x: Vec<i32> = (0..64).map(|i| (i * 7 + i / 9) % 10).collect();
    let (x_at, y_at) = (arena.put(&x), arena.put(&[0i32; 64]));
    Run::new(&module, "switches", 1, 64).run(&arena, Parameters::default().pointer(x_at).pointer(y_at));
    let choose = |(i, &x): (usize, &i32)| {
        let i = i as i32;
        match x {
            0 => 10,
            1 => i * 3,
            2 => i ^ 77,
            3 => -i,
            4 => i << 3,
            5 => i / 3,
            6 => 123,
            7 => i * i,
            _ => -1,
        }
    };
    assert_eq!(arena.get::<i32>(y_at, 64), x.iter().enumerate().map(choose).collect::<Vec<_>>());
}

#[test]
fn arrays_in_local_memory() {
    let module = module();
    let mut arena = Arena::new(1 << 12);
    let x: Vec<i32> = (0..20).map(|i| i * i % 23).collect();
    let (x_at, y_at) = (arena.put(&x), arena.put(&[0i32; 40]));
    Run::new(&module, "locals", 1, 40).run(&arena, Parameters::default().pointer(x_at).pointer(y_at).int(20));
    let expected: Vec<i32> = (0..40i32)
        .map(|i| {
            let mut a = [0; 33];
            for j in 0..33 {
                a[(j as usize * 7) % 33] = j * i;
            }
            x.iter().fold(0i32, |s, &x| s.wrapping_mul(31).wrapping_add(a[(x + i) as usize % 33]))
        })
        .collect();
    assert_eq!(arena.get::<i32>(y_at, 40), expected);
}

#[test]
fn lanes_and_blocks_compete_for_a_lock() {
    let module = module();
    let mut arena = Arena::new(1 << 12);
    let (lock, value, y) = (arena.put(&[0i32]), arena.put(&[0i32]), arena.put(&[-1i32; 192]));
    Run::new(&module, "locks", 3, 64)
        .run(&arena, Parameters::default().pointer(lock).pointer(value).pointer(y));
    let mut tickets = arena.get::<i32>(y, 192);
    tickets.sort_unstable();
    assert_eq!(tickets, (0..192).collect::<Vec<i32>>(), "everyone got the lock exactly once");
    assert_eq!(arena.get::<i32>(lock, 1), [0]);
}

#[test]
fn blocks_of_a_cooperative_launch_wait_for_each_other() {
    let text = kernel(
        "atom.global.add.u32 %r1, [%out], 1; mov.u32 %r2, %nctaid.x;\n\
         WAIT: ld.volatile.global.u32 %r1, [%out]; setp.lt.u32 %p1, %r1, %r2; @%p1 bra WAIT;",
    );
    let module = Module::parse(&text).expect("PTX parses");
    let mut arena = Arena::new(1 << 12);
    let arrived = arena.put(&[0_u32]);
    let run = Run { is_cooperative: true, ..Run::new(&module, "test", 5, 1) };
    run.run(&arena, Parameters::default().pointer(arrived));
    assert_eq!(arena.get::<u32>(arrived, 1), [5]);
}

#[test]
fn a_warp_waits_for_what_another_writes() {
    let module = module();
    let mut arena = Arena::new(1 << 12);
    let y = arena.put(&[0i32]);
    Run::new(&module, "hand_over", 1, 64).run(&arena, Parameters::default().pointer(y));
    assert_eq!(arena.get::<i32>(y, 1), [42]);
}

#[test]
fn ballots_and_reductions_at_barriers() {
    let module = module();
    let mut arena = Arena::new(1 << 12);
    let x: Vec<i32> = (0..96).map(|i| i * 5 % 7).collect();
    let (x_at, y_at) = (arena.put(&x), arena.put(&[0i32; 96]));
    Run::new(&module, "counts", 1, 96).run(&arena, Parameters::default().pointer(x_at).pointer(y_at));
    let above = |values: &[i32]| values.iter().filter(|&&x| x > 3).count() as i32;
    let expected: Vec<i32> =
        (0..96).map(|i| above(&x[i / 32 * 32..][..32]) * 1000 + above(&x) * 10 + 2).collect();
    assert_eq!(arena.get::<i32>(y_at, 96), expected);
}

#[test]
fn named_barriers_of_some_warps() {
    let module = module();
    let mut arena = Arena::new(1 << 12);
    let y = arena.put(&[0i32; 32]);
    Run::new(&module, "named_barriers", 1, 96).run(&arena, Parameters::default().pointer(y));
    assert_eq!(arena.get::<i32>(y, 32), (0..32).map(|lane| (31 - lane) * (31 - lane)).collect::<Vec<i32>>());
}

#[test]
fn globals_that_point_to_globals() {
    let module = module();
    let mut arena = Arena::new(1 << 12);
    arena.load_globals(&module);
    let y = arena.put(&[0i32]);
    Run::new(&module, "relocated", 1, 1).run(&arena, Parameters::default().pointer(y));
    assert_eq!(arena.get::<i32>(y, 1), [3]);
}

#[test]
fn traps_stop_the_kernel() {
    let module = module();
    let mut arena = Arena::new(1 << 12);
    let y = arena.put(&[0i32; 2]);
    let run = Run::new(&module, "asserts", 1, 32);
    run.run(&arena, Parameters::default().pointer(y));
    assert_eq!(arena.get::<i32>(y, 2), [0, 1]);
    arena.set(y, &[1i32, 0]);
    let fault = run.start(&arena, Parameters::default().pointer(y)).expect_err("a trap");
    assert!(matches!(fault, KernelFault::Trap { .. }), "{fault}");
}

#[test]
fn a_managed_variable_is_one_of_device_memory_that_says_so() {
    let text = |attribute: &str| {
        format!(
            ".version 8.0\n.target sm_80\n.address_size 64\n.visible .global {attribute} .align 4 .u32 x = 5;\n.global .u32 y;\n"
        )
    };
    let module = Module::parse(&text(".attribute(.managed)")).expect("PTX parses");
    let found = module.globals().iter().map(|global| (global.name.as_str(), global.managed));
    assert_eq!(found.collect::<Vec<_>>(), [("x", true), ("y", false)]);
    assert!(Module::parse(&text(".attribute(.unified(1, 2))")).is_err(), "what is not known is refused");
}

#[test]
fn what_one_text_declares_another_one_that_is_linked_with_it_defines() {
    const HEAD: &str = ".version 8.0\n.target sm_70\n.address_size 64\n";
    let with = |body: &str| format!("{HEAD}{body}");
    let uses = with(
        ".extern .global .u32 step;\n.extern .func (.reg .u32 %out) twice(.reg .u32 %in);\n\
         .weak .func (.reg .u32 %out) both(.reg .u32 %in) { add.u32 %out, %in, 1; ret; }\n\
         .visible .entry use(.param .u64 p) { .reg .u64 %a; .reg .u32 %x, %y; ld.param.u64 %a, [p];\n\
         ld.global.u32 %x, [step]; call (%y), twice, (%x); call (%x), both, (%y); st.global.u32 [%a], %x; ret; }",
    );
    let defines = |linkage: &str| {
        with(&format!(
            ".visible .global .u32 step = 20;\n\
             .visible .func (.reg .u32 %out) twice(.reg .u32 %in) {{ add.u32 %out, %in, %in; ret; }}\n\
             {linkage} .func (.reg .u32 %out) both(.reg .u32 %in) {{ add.u32 %out, %in, 2; ret; }}\n\
             .visible .entry other() {{ ret; }}"
        ))
    };
    for (texts, result) in [
        ([&uses, &defines(".visible")], 42),
        ([&defines(".visible"), &uses], 42),
        ([&uses, &defines(".weak")], 41),
        ([&defines(".weak"), &uses], 42),
    ] {
        let module = Module::link(texts.map(String::as_str)).unwrap();
        assert_eq!(module.kernels().len(), 2);
        let mut arena = Arena::new(1 << 12);
        arena.load_globals(&module);
        let out = arena.put(&[0_u32]);
        Run::new(&module, "use", 1, 1).run(&arena, Parameters::default().pointer(out));
        assert_eq!(arena.get::<u32>(out, 1), [result]);
    }
    let refusal = |texts: &[&String]| Module::link(texts.iter().map(|text| text.as_str())).unwrap_err();
    assert!(matches!(refusal(&[&uses]), PtxError::Undefined { .. }));
    let twice = defines(".visible");
    assert!(matches!(refusal(&[&twice, &twice]), PtxError::Duplicate { .. }));
}
