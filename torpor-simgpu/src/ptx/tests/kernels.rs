//! The kernels of `evaluation/kernels`, each against a direct evaluation.

use super::super::Module;
use super::arena::Arena;
use super::{Parameters, Run};

macro_rules! module {
    ($name:literal) => {
        Module::parse(include_str!(concat!("../../../../evaluation/kernels/", $name, ".ptx")))
            .expect("PTX parses")
    };
}

/// Numbers between -1 and 1, the same in every run.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let step = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(step).collect()
}

fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (found - expected).abs();
        assert!(difference <= tolerance * expected.abs().max(1e-3), "{index}: {found} instead of {expected}");
    }
}

#[test]
fn vector_add() {
    let module = module!("vector_add");
    let mut arena = Arena::new(1 << 16);
    let (a, b) = (numbers(1000, 1), numbers(1000, 2));
    let (a_at, b_at, c_at) = (arena.put(&a), arena.put(&b), arena.put(&vec![7f32; 1024]));
    let parameters = Parameters::default().pointer(a_at).pointer(b_at).pointer(c_at).int(1000);
    let statistics = Run::new(&module, "vector_add", 8, 128).run(&arena, parameters);
    let sums: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
    assert_eq!(arena.get::<f32>(c_at, 1000), sums);
    assert_eq!(arena.get::<f32>(c_at + 4000, 24), [7.0; 24], "nothing beyond the end is written");
    assert!(statistics.instructions > 1000 * 15 && statistics.instructions < 1024 * 30, "{statistics:?}");
}

#[test]
fn vector_add_without_windows() {
    let module = module!("vector_add");
    let mut arena = Arena::new(1 << 16);
    arena.windows = false;
    let (a, b) = (numbers(1000, 1), numbers(1000, 2));
    let (a_at, b_at, c_at) = (arena.put(&a), arena.put(&b), arena.put(&vec![7f32; 1000]));
    let parameters = Parameters::default().pointer(a_at).pointer(b_at).pointer(c_at).int(1000);
    Run::new(&module, "vector_add", 8, 128).run(&arena, parameters);
    let sums: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
    assert_eq!(arena.get::<f32>(c_at, 1000), sums);
}

#[test]
fn saxpy_with_a_grid_stride_loop() {
    let module = module!("saxpy");
    let mut arena = Arena::new(1 << 16);
    let (x, y) = (numbers(3000, 3), numbers(3000, 4));
    let (x_at, y_at) = (arena.put(&x), arena.put(&y));
    Run::new(&module, "saxpy", 3, 96)
        .run(&arena, Parameters::default().int(3000).float(2.5).pointer(x_at).pointer(y_at));
    let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| 2.5f32.mul_add(*x, *y)).collect();
    assert_eq!(arena.get::<f32>(y_at, 3000), expected);
}

#[test]
fn sgemm_tiled_of_odd_sizes() {
    let module = module!("sgemm_tiled");
    let (m, n, k) = (37, 45, 29);
    let mut arena = Arena::new(1 << 16);
    let (a, b) = (numbers(m * k, 5), numbers(k * n, 6));
    let (a_at, b_at, c_at) = (arena.put(&a), arena.put(&b), arena.put(&vec![0f32; m * n]));
    let mut run = Run::new(&module, "sgemm_tiled", 0, 0);
    (run.grid, run.block) = ([n.div_ceil(16) as u32, m.div_ceil(16) as u32, 1], [16, 16, 1]);
    let sizes = Parameters::default().pointer(a_at).pointer(b_at).pointer(c_at);
    run.run(&arena, sizes.int(m as u32).int(n as u32).int(k as u32));
    let mut expected = vec![0f32; m * n];
    for row in 0..m {
        for column in 0..n {
            expected[row * n + column] =
                (0..k).fold(0f32, |sum, i| a[row * k + i].mul_add(b[i * n + column], sum));
        }
    }
    assert_eq!(arena.get::<f32>(c_at, m * n), expected);
}

#[test]
fn bias_relu_in_vectors_of_four() {
    let module = module!("bias_relu");
    let (rows, columns) = (5, 52);
    let mut arena = Arena::new(1 << 16);
    let (x, bias) = (numbers(rows * columns, 7), numbers(columns, 8));
    let (x_at, bias_at) = (arena.put(&x), arena.put(&bias));
    let mut run = Run::new(&module, "bias_relu", 1, 32);
    run.grid[1] = rows as u32;
    run.run(
        &arena,
        Parameters::default().pointer(x_at).pointer(bias_at).int(rows as u32).int(columns as u32 / 4),
    );
    let expected: Vec<f32> =
        x.iter().enumerate().map(|(index, x)| (x + bias[index % columns]).max(0.0)).collect();
    assert_eq!(arena.get::<f32>(x_at, rows * columns), expected);
}

#[test]
fn softmax_over_rows() {
    let module = module!("softmax");
    let (rows, columns) = (4, 333);
    let mut arena = Arena::new(1 << 16);
    let x: Vec<f32> = numbers(rows * columns, 9).iter().map(|x| x * 10.0).collect();
    let (in_at, out_at) = (arena.put(&x), arena.put(&vec![0f32; rows * columns]));
    let mut run = Run::new(&module, "softmax", rows as u32, 128);
    run.dynamic_shared_bytes = 16;
    run.run(&arena, Parameters::default().pointer(in_at).pointer(out_at).int(columns as u32));
    let mut expected = Vec::new();
    for row in x.chunks(columns) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exponentials: Vec<f64> = row.iter().map(|x| f64::from(x - largest).exp()).collect();
        let sum: f64 = exponentials.iter().sum();
        expected.extend(exponentials.iter().map(|x| (x / sum) as f32));
    }
    assert_close(&arena.get::<f32>(out_at, rows * columns), &expected, 1e-5);
}

#[test]
fn layer_norm_over_rows() {
    let module = module!("layer_norm");
    let (rows, columns) = (3, 300);
    let mut arena = Arena::new(1 << 16);
    let (x, gamma, beta) = (numbers(rows * columns, 10), numbers(columns, 11), numbers(columns, 12));
    let (x_at, gamma_at, beta_at) = (arena.put(&x), arena.put(&gamma), arena.put(&beta));
    let out_at = arena.put(&vec![0f32; rows * columns]);
    let pointers = Parameters::default().pointer(x_at).pointer(gamma_at).pointer(beta_at).pointer(out_at);
    Run::new(&module, "layer_norm", rows as u32, 64).run(&arena, pointers.int(columns as u32).float(1e-5));
    let mut expected = Vec::new();
    for row in x.chunks(columns) {
        let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / columns as f64;
        let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / columns as f64;
        let scale = 1.0 / (variance + 1e-5).sqrt();
        for (column, &x) in row.iter().enumerate() {
            expected.push(
                ((f64::from(x) - mean) * scale * f64::from(gamma[column]) + f64::from(beta[column])) as f32,
            );
        }
    }
    assert_close(&arena.get::<f32>(out_at, rows * columns), &expected, 1e-4);
}

#[test]
fn convolution_with_padding() {
    let module = module!("convolution");
    let (images, inputs, outputs, height, width, size) = (2, 3, 4, 11, 13, 3);
    let mut arena = Arena::new(1 << 16);
    let x = numbers(images * inputs * height * width, 13);
    let (weights, bias) = (numbers(outputs * inputs * size * size, 14), numbers(outputs, 15));
    let (x_at, weights_at, bias_at) = (arena.put(&x), arena.put(&weights), arena.put(&bias));
    let count = images * outputs * height * width;
    let out_at = arena.put(&vec![0f32; count]);
    let mut run = Run::new(&module, "convolution", 0, 0);
    (run.grid, run.block) = ([2, 3, (images * outputs) as u32], [8, 4, 1]);
    let pointers = Parameters::default().pointer(x_at).pointer(weights_at).pointer(bias_at).pointer(out_at);
    let sizes = [inputs, outputs, height, width, size];
    run.run(&arena, sizes.iter().fold(pointers, |parameters, &size| parameters.int(size as u32)));
    let mut expected = Vec::with_capacity(count);
    for index in 0..count {
        let (column, row) = (index % width, index / width % height);
        let (channel, image) = (index / width / height % outputs, index / width / height / outputs);
        let mut sum = bias[channel];
        for c in 0..inputs {
            for dy in 0..size {
                for dx in 0..size {
                    let (sy, sx) = ((row + dy).wrapping_sub(size / 2), (column + dx).wrapping_sub(size / 2));
                    if sy < height && sx < width {
                        let value = x[((image * inputs + c) * height + sy) * width + sx];
                        sum = value.mul_add(weights[((channel * inputs + c) * size + dy) * size + dx], sum);
                    }
                }
            }
        }
        expected.push(sum);
    }
    assert_eq!(arena.get::<f32>(out_at, count), expected);
}

#[test]
fn histogram_with_shared_and_global_atomics() {
    let module = module!("histogram");
    let mut arena = Arena::new(1 << 16);
    let bytes: Vec<u8> = numbers(5000, 16).iter().map(|x| (x * x * 255.0) as u8).collect();
    let (in_at, bins_at) = (arena.put(&bytes), arena.put(&[0u32; 256]));
    let parameters = Parameters::default().pointer(in_at).int(5000).pointer(bins_at);
    Run::new(&module, "histogram", 5, 96).run(&arena, parameters);
    let mut expected = [0u32; 256];
    for &byte in &bytes {
        expected[usize::from(byte)] += 1;
    }
    assert_eq!(arena.get::<u32>(bins_at, 256), expected);
}

#[test]
fn linked_list_through_pointers_that_the_device_wrote() {
    let module = module!("linked_list");
    let mut arena = Arena::new(1 << 16);
    let nodes_at = arena.put(&[0u64; 400]);
    Run::new(&module, "link_nodes", 2, 128).run(&arena, Parameters::default().pointer(nodes_at).int(200));
    // Lists that start at different nodes of the same chain, and one that is empty.
    let heads: Vec<u64> = vec![nodes_at, nodes_at + 16 * 150, 0, nodes_at + 16 * 199];
    let heads_at = arena.put(&heads);
    let (sums_at, lengths_at) = (arena.put(&[0i64; 4]), arena.put(&[0i32; 4]));
    let parameters = Parameters::default().pointer(heads_at).int(4).pointer(sums_at).pointer(lengths_at);
    Run::new(&module, "linked_list", 1, 32).run(&arena, parameters);
    assert_eq!(arena.get::<i64>(sums_at, 4), [(0..200).sum(), (150..200).sum(), 0, 199]);
    assert_eq!(arena.get::<i32>(lengths_at, 4), [200, 50, 0, 1]);
}

#[test]
fn constant_table_and_module_globals() {
    let module = module!("constant_table");
    let global = |name: &str| module.globals().iter().find(|global| global.name == name).expect("the global");
    assert!(global("coefficients").constant && global("coefficients").bytes == 32);
    assert_eq!(global("degree").init, 7u32.to_le_bytes());
    assert!(!global("evaluations").constant);

    let mut arena = Arena::new(1 << 16);
    arena.load_globals(&module);
    let coefficients = numbers(8, 17);
    arena.set(arena.symbol("coefficients").expect("allocated"), &coefficients);
    let x = numbers(100, 18);
    let (x_at, y_at) = (arena.put(&x), arena.put(&[0f32; 100]));
    let parameters = Parameters::default().pointer(x_at).pointer(y_at).int(100);
    Run::new(&module, "constant_table", 1, 128).run(&arena, parameters);
    let polynomial =
        |x: f32| coefficients[..7].iter().rev().fold(coefficients[7], |value, c| value.mul_add(x, *c));
    let expected: Vec<f32> = x.iter().map(|&x| polynomial(x)).collect();
    assert_eq!(arena.get::<f32>(y_at, 100), expected);
    let evaluations = arena.symbol("evaluations").expect("allocated");
    assert_eq!(arena.get::<u32>(evaluations, 1), [100]);
}

#[test]
fn kernels_tell_their_parameters_and_memory() {
    let module = module!("sgemm_tiled");
    let kernel = module.kernel("sgemm_tiled").expect("the kernel");
    let layout: Vec<_> =
        kernel.parameters.iter().map(|parameter| (parameter.offset, parameter.bytes)).collect();
    assert_eq!(layout, [(0, 8), (8, 8), (16, 8), (24, 4), (28, 4), (32, 4)]);
    assert_eq!(kernel.static_shared_bytes, 2 * 16 * 16 * 4);
    assert_eq!((kernel.local_bytes, kernel.max_threads_per_block), (0, 1024));
}
