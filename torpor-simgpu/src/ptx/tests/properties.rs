//! Random sequences of arithmetic instructions, against a direct evaluation; and text that is no PTX.

use proptest::prelude::*;

use super::super::Module;
use super::arena::Arena;
use super::{Parameters, Run, evaluate, kernel};

/// A register of the test's machine: four of 32 bits and two of 64 bits.
#[derive(Debug, Clone, Copy)]
enum Source {
    Register(usize),
    Literal(u32),
}

#[derive(Debug, Clone)]
struct Step {
    operation: usize,
    d: usize,
    sources: [Source; 3],
}

type Evaluate = fn(u32, u32, u32) -> u32;

fn f(bits: u32) -> f32 {
    f32::from_bits(bits)
}

/// Bits of a single-precision result: NaN is canonical.
fn b(value: f32) -> u32 {
    if value.is_nan() { 0x7fff_ffff } else { value.to_bits() }
}

/// Instructions on words: text, number of sources, whether they are floats, meaning.
const OPERATIONS: &[(&str, usize, bool, Evaluate)] = &[
    ("add.s32", 2, false, |a, b, _| a.wrapping_add(b)),
    ("sub.s32", 2, false, |a, b, _| a.wrapping_sub(b)),
    ("mul.lo.s32", 2, false, |a, b, _| a.wrapping_mul(b)),
    ("mul.hi.u32", 2, false, |a, b, _| ((u64::from(a) * u64::from(b)) >> 32) as u32),
    ("mul.hi.s32", 2, false, |a, b, _| ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32),
    ("mad.lo.s32", 3, false, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
    ("div.u32", 2, false, |a, b, _| a.checked_div(b).unwrap_or(u32::MAX)),
    ("rem.s32", 2, false, |a, b, _| if b == 0 { a } else { (a as i32).wrapping_rem(b as i32) as u32 }),
    ("min.s32", 2, false, |a, b, _| (a as i32).min(b as i32) as u32),
    ("max.u32", 2, false, |a, b, _| a.max(b)),
    ("and.b32", 2, false, |a, b, _| a & b),
    ("or.b32", 2, false, |a, b, _| a | b),
    ("xor.b32", 2, false, |a, b, _| a ^ b),
    ("not.b32", 1, false, |a, _, _| !a),
    ("shl.b32", 2, false, |a, b, _| a.checked_shl(b).unwrap_or(0)),
    ("shr.u32", 2, false, |a, b, _| a.checked_shr(b).unwrap_or(0)),
    ("shr.s32", 2, false, |a, b, _| ((a as i32) >> b.min(31)) as u32),
    ("popc.b32", 1, false, |a, _, _| a.count_ones()),
    ("clz.b32", 1, false, |a, _, _| a.leading_zeros()),
    ("brev.b32", 1, false, |a, _, _| a.reverse_bits()),
    ("abs.s32", 1, false, |a, _, _| (a as i32).wrapping_abs() as u32),
    ("neg.s32", 1, false, |a, _, _| a.wrapping_neg()),
    ("shf.l.wrap.b32", 3, false, |a, b, c| (((u64::from(b) << 32 | u64::from(a)) << (c & 31)) >> 32) as u32),
    ("add.rn.f32", 2, true, |x, y, _| b(f(x) + f(y))),
    ("sub.rn.f32", 2, true, |x, y, _| b(f(x) - f(y))),
    ("mul.rn.f32", 2, true, |x, y, _| b(f(x) * f(y))),
    ("div.rn.f32", 2, true, |x, y, _| b(f(x) / f(y))),
    ("fma.rn.f32", 3, true, |x, y, z| b(f(x).mul_add(f(y), f(z)))),
    ("sqrt.rn.f32", 1, true, |x, _, _| b(f(x).sqrt())),
    ("neg.f32", 1, true, |x, _, _| x ^ 0x8000_0000),
    ("abs.f32", 1, true, |x, _, _| x & 0x7fff_ffff),
];

fn step() -> impl Strategy<Value = Step> {
    let literal = prop_oneof![
        any::<u32>(),
        0..40u32,
        Just(u32::MAX),
        Just(1 << 31),
        (0..40u32).prop_map(|x| (x as f32 - 20.0).to_bits())
    ];
    let source =
        prop_oneof![3 => (0..4usize).prop_map(Source::Register), 1 => literal.prop_map(Source::Literal)];
    (0..OPERATIONS.len(), 0..4usize, [source.clone(), source.clone(), source])
        .prop_map(|(operation, d, sources)| Step { operation, d, sources })
}

/// Registers of both kinds are names for the same bits: floats are moved in and out.
fn text(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        let (name, count, float, _) = OPERATIONS[step.operation];
        let mut operands = Vec::new();
        for (index, source) in step.sources[..count].iter().enumerate() {
            let value = match source {
                Source::Register(register) => format!("%r{}", register + 10),
                Source::Literal(value) => format!("{value:#x}"),
            };
            if float {
                text += &format!("mov.b32 %r20, {value}; mov.b32 %f{index}, %r20;\n");
                operands.push(format!("%f{index}"));
            } else {
                operands.push(value);
            }
        }
        let d = step.d + 10;
        if float {
            text += &format!("{name} %f9, {}; mov.b32 %r{d}, %f9;\n", operands.join(", "));
        } else {
            text += &format!("{name} %r{d}, {};\n", operands.join(", "));
        }
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn sequences_agree_with_direct_evaluation(
        start in prop::collection::vec(any::<[u32; 4]>(), 40),
        steps in prop::collection::vec(step(), 1..30),
        masked in any::<bool>(),
    ) {
        // Every lane starts from its own registers; if `masked`, odd lanes leave before the sequence.
        let leave = if masked { "and.b32 %r1, %tid, 1; setp.ne.u32 %p1, %r1, 0; @%p1 ret;" } else { "" };
        let body = format!(
            "ld.global.v4.u32 {{%r10, %r11, %r12, %r13}}, [%slot];\n{leave}\n{}\
             st.global.v4.u32 [%slot], {{%r10, %r11, %r12, %r13}};",
            text(&steps)
        );
        let module = Module::parse(&kernel(&body)).expect("PTX parses");
        let mut arena = Arena::new(1 << 12);
        let words: Vec<u32> = start.iter().flatten().copied().collect();
        let out = arena.put(&words);
        Run::new(&module, "test", 1, 40).run(&arena, Parameters::default().pointer(out));
        let found = arena.get::<u32>(out, words.len());
        for (lane, registers) in start.iter().enumerate() {
            let mut registers = *registers;
            if !masked || lane % 2 == 0 {
                for step in &steps {
                    let value = |source: Source| match source {
                        Source::Register(register) => registers[register],
                        Source::Literal(value) => value,
                    };
                    let [a, b, c] = step.sources.map(value);
                    registers[step.d] = OPERATIONS[step.operation].3(a, b, c);
                }
            }
            prop_assert_eq!(&found[lane * 4..][..4], &registers, "lane {}\n{}", lane, body);
        }
    }

    #[test]
    fn double_precision_and_long_integers(a in any::<u64>(), b in any::<u64>(), c in any::<u64>()) {
        let cases: [(&str, u64); 8] = [
            ("add.s64 %rd0, %rd1, %rd2", a.wrapping_add(b)),
            ("mul.lo.s64 %rd0, %rd1, %rd2", a.wrapping_mul(b)),
            ("mul.hi.s64 %rd0, %rd1, %rd2", ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64),
            ("div.s64 %rd0, %rd1, %rd2", if b == 0 { u64::MAX } else { (a as i64).wrapping_div(b as i64) as u64 }),
            ("mad.lo.s64 %rd0, %rd1, %rd2, %rd3", a.wrapping_mul(b).wrapping_add(c)),
            ("bfe.u64 %rd0, %rd1, 7, 21", (a >> 7) & 0x1f_ffff),
            ("xor.b64 %rd0, %rd1, %rd2", a ^ b),
            ("cvt.s64.s8 %rd0, %rd1", i64::from(a as i8) as u64),
        ];
        for (instruction, expected) in cases {
            let body = format!(
                "mov.u64 %rd1, {a:#x}; mov.u64 %rd2, {b:#x}; mov.u64 %rd3, {c:#x}; {instruction}; st.global.u64 [%slot], %rd0;"
            );
            prop_assert_eq!(evaluate(&body, 1)[0][0], expected, "{}", body);
        }
        let (x, y, z) = (f64::from_bits(a), f64::from_bits(b), f64::from_bits(c));
        let floats: [(&str, f64); 4] = [
            ("add.rn.f64 %fd0, %fd1, %fd2", x + y),
            ("mul.rn.f64 %fd0, %fd1, %fd2", x * y),
            ("div.rn.f64 %fd0, %fd1, %fd2", x / y),
            ("fma.rn.f64 %fd0, %fd1, %fd2, %fd3", x.mul_add(y, z)),
        ];
        for (instruction, expected) in floats {
            let body = format!(
                "mov.f64 %fd1, 0d{a:016X}; mov.f64 %fd2, 0d{b:016X}; mov.f64 %fd3, 0d{c:016X}; {instruction}; st.global.f64 [%slot], %fd0;"
            );
            let found = f64::from_bits(evaluate(&body, 1)[0][0]);
            prop_assert!(found == expected || found.is_nan() && expected.is_nan(), "{found} {expected}\n{body}");
        }
    }

    /// In a directed mode the result is the neighbour of the exact value on the right side.
    #[test]
    fn directed_rounding_brackets_the_exact_sum(x in -1e10f32..1e10, y in -1e-3f32..1e-3) {
        let results: Vec<f64> = ["rm", "rn", "rp", "rz"].iter().map(|mode| {
            let body = format!(
                "add.{mode}.f32 %f0, 0f{:08X}, 0f{:08X}; st.global.f32 [%slot], %f0;", x.to_bits(), y.to_bits()
            );
            f64::from(f32::from_bits(evaluate(&body, 1)[0][0] as u32))
        }).collect();
        // Exact: 24 bits each, at most 75 binary places apart is too far for f64, so compare differences.
        let above = |result: f64| (result - f64::from(x)) - f64::from(y);
        prop_assert!(above(results[0]) <= 0.0 && above(results[2]) >= 0.0, "{results:?}");
        prop_assert!((results[2] as f32) == results[0] as f32 || (results[2] as f32) == (results[0] as f32).next_up());
        prop_assert!(results[1] == results[0] || results[1] == results[2]);
        prop_assert!(results[3].abs() <= results[0].abs().max(results[2].abs()));
        prop_assert!(results[3] == results[0] || results[3] == results[2]);
    }

    #[test]
    fn any_text_is_parsed_or_refused(position in any::<prop::sample::Index>(), length in 0..60usize, insert in ".{0,12}") {
        let text = include_str!("../../../../evaluation/kernels/softmax.ptx");
        let start = position.index(text.len());
        let end = (start + length).min(text.len());
        let mut damaged = text.to_owned();
        damaged.replace_range(start..end, &insert);
        // Whatever it says, it does not panic.
        let _ = Module::parse(&damaged);
    }
}
