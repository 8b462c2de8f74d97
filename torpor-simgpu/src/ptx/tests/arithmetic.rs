//! `cuda/arithmetic.cu`: library functions and intrinsics against Rust's.

use super::super::Module;
use super::arena::Arena;
use super::{Parameters, Run};

fn module() -> Module {
    Module::parse(include_str!("cuda/arithmetic.ptx")).expect("PTX parses")
}

#[test]
fn single_precision_functions() {
    let x: Vec<f32> = (0..64).map(|i| (i as f32 - 31.3) * 0.37).collect();
    let mut arena = Arena::new(1 << 16);
    let (x_at, y_at) = (arena.put(&x), arena.put(&[0f32; 64 * 20]));
    // Range reduction reads tables in device memory.
    let module = module();
    arena.load_globals(&module);
    Run::new(&module, "math32", 1, 64).run(&arena, Parameters::default().pointer(x_at).pointer(y_at));
    for (results, &x) in arena.get::<f32>(y_at, 64 * 20).chunks(20).zip(&x) {
        let v = f64::from(x);
        let large = f64::from(x * 1e6);
        let approximate = [
            v.sin(),
            v.cos(),
            v.tan(),
            v.exp(),
            v.abs().ln(),
            v.abs().powf(f64::from(1.7f32)),
            v.tanh(),
            v / f64::from(3.3f32),
            v.abs().sqrt(),
            1.0 / v.abs().sqrt(),
            v % f64::from(0.7f32),
            f64::from(x.round()),
            v.floor(),
            v.cbrt(),
            v.atan2(f64::from(0.3f32)),
            v.exp2(),
            v.abs().log2(),
            large.sin(),
            v * 8.0,
        ];
        for (index, (&found, expected)) in results.iter().zip(approximate).enumerate() {
            let difference = (f64::from(found) - expected).abs();
            assert!(
                difference <= 2e-6 * expected.abs() + 1e-7,
                "{index} of {x}: {found} instead of {expected}"
            );
        }
        assert_eq!(results[7], x / 3.3, "division is rounded correctly");
        assert_eq!(results[8], x.abs().sqrt(), "the square root too");
        let sum = v + f64::from(1e-9f32);
        assert!(f64::from(results[19]) <= sum && f64::from(results[19].next_up()) > sum, "rounded down");
    }
}

#[test]
fn double_precision_functions() {
    let x: Vec<f64> = (0..32).map(|i| (f64::from(i) - 15.4) * 0.61).collect();
    let mut arena = Arena::new(1 << 16);
    let (x_at, y_at) = (arena.put(&x), arena.put(&[0f64; 32 * 10]));
    let module = module();
    arena.load_globals(&module);
    Run::new(&module, "math64", 1, 32).run(&arena, Parameters::default().pointer(x_at).pointer(y_at));
    for (results, &v) in arena.get::<f64>(y_at, 32 * 10).chunks(10).zip(&x) {
        let approximate =
            [v.sin(), v.cos(), v.exp(), v.abs().ln(), v.abs().powf(1.7), v.abs().sqrt(), v / 3.3, v.tanh()];
        for (index, (&found, expected)) in results.iter().zip(approximate).enumerate() {
            assert!(
                (found - expected).abs() <= 1e-14 * expected.abs().max(1.0),
                "{index} of {v}: {found} {expected}"
            );
        }
        assert_eq!(results[5..7], [v.abs().sqrt(), v / 3.3]);
        assert_eq!(results[8..], [v.round_ties_even(), v.mul_add(v, 1.0)]);
    }
}

#[test]
fn integer_intrinsics() {
    let v: Vec<u32> = (0..32).map(|i: u32| i.wrapping_mul(2_654_435_761) ^ (i << 27)).collect();
    let q: Vec<i64> = (0..32).map(|i: i64| (i - 16).wrapping_mul(0x1234_5678_9abc_def1)).collect();
    let mut arena = Arena::new(1 << 16);
    let (v_at, q_at, y_at) = (arena.put(&v), arena.put(&q), arena.put(&[0u64; 32 * 16]));
    let parameters = Parameters::default().pointer(v_at).pointer(q_at).pointer(y_at);
    Run::new(&module(), "integers", 1, 32).run(&arena, parameters);
    for (index, results) in arena.get::<u64>(y_at, 32 * 16).chunks(16).enumerate() {
        let (v, q) = (v[index], q[index]);
        let signed = |value: i32| i64::from(value) as u64;
        let bytes = ((u64::from(!v) << 32) | u64::from(v)).to_le_bytes();
        let dot: i32 = (0..4).map(|i| i32::from(bytes[i] as i8) * i32::from(bytes[i + 4] as i8)).sum();
        let wide = u128::from(q as u64).wrapping_mul(u128::from(u64::from(v) | 0x1_0000_0000));
        let sums = v.to_le_bytes().map(|byte| byte.wrapping_add(0x7f));
        let expected = [
            u64::from(v / 7),
            signed(v as i32 / -3),
            u64::from(v % 10),
            (q / 1_000_003) as u64,
            (q % 77) as u64,
            u64::from(v.count_ones()),
            u64::from(v.leading_zeros()),
            u64::from(v.reverse_bits()),
            u64::from(u32::from_le_bytes([bytes[3], bytes[4], bytes[5], bytes[6]])),
            (u64::from(v) * 0xdead_beef) >> 32,
            ((i128::from(q) * 0x0123_4567_89ab_cdef) >> 64) as u64,
            u64::from((((u64::from(!v) << 32 | u64::from(v)) << (v & 31)) >> 32) as u32),
            (wide >> 40) as u64,
            if q == 0 { 0 } else { u64::from(q.trailing_zeros()) + 1 },
            signed(dot + 5),
            u64::from(u32::from_le_bytes(sums)),
        ];
        assert_eq!(results, expected, "{v:#x} {q:#x}");
    }
}

#[test]
fn half_precision() {
    // Halves that are exact in single precision, with a result that needs rounding.
    let values: Vec<f32> = (0..32).map(|i| (i as f32 - 15.5) * 0.375).collect();
    let half = |value: f32| {
        super::super::rounding::narrow(f64::from(value), 5, 10, super::super::rounding::Rounding::Nearest)
            as u16
    };
    let bits: Vec<u16> = values.iter().map(|&value| half(value)).collect();
    let mut arena = Arena::new(1 << 16);
    let (x, y) = (arena.put(&bits), arena.put(&[0u16; 32]));
    let (z, b, sum) = (arena.put(&[0u32; 32]), arena.put(&[0u16; 32]), arena.put(&[0u16]));
    let parameters = Parameters::default().pointer(x).pointer(y).pointer(z).pointer(b).pointer(sum);
    Run::new(&module(), "halves", 1, 32).run(&arena, parameters);
    let single = super::super::half::f16_to_single;
    let brain = |value: f32| {
        let bits = value.to_bits();
        ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
    };
    let of_brain = |bits: u16| f32::from_bits(u32::from(bits) << 16);
    let (y, z, b) = (arena.get::<u16>(y, 32), arena.get::<u32>(z, 32), arena.get::<u16>(b, 32));
    for (index, &v) in values.iter().enumerate() {
        assert_eq!(y[index], half(single(half(v * v)) + v), "{v}");
        let fused = |p: f32| u32::from(half(p.mul_add(p, single(half(p + p)))));
        assert_eq!(z[index], fused(-v) << 16 | fused(v), "{v}");
        let w = of_brain(brain(v));
        assert_eq!(b[index], brain(w + of_brain(brain(w * w))), "{v}");
    }
    assert_eq!(single(arena.get::<u16>(sum, 1)[0]), 32.0);
}
