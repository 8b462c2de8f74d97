//! What the functions must answer, computed on the CPU in plain loops: the arithmetic of `evaluation/kernels` in f32.
//!
//! Products are summed as there, in fused multiply-adds in the same order; sums over a row and the exponential differ
//! from a GPU's by rounding, which is what [`TOLERANCE`] is for.

use super::network::{LAYER_NORM_EPSILON, Layer, Network, Shape};

/// How far an answer may be off, relative to the reference.
pub const TOLERANCE: f32 = 1e-4;

/// A network with its weights at hand.
#[derive(Debug)]
pub struct Reference<'a> {
    network: &'a Network,
    /// In the order of [`Network::tensors`].
    weights: Vec<Vec<f32>>,
}

/// The first number of an answer that is off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Which number.
    pub index: usize,
    /// What the function says; none if its answer is too short.
    pub found: Option<f32>,
    /// What is right; none if the answer is too long.
    pub expected: Option<f32>,
}

impl<'a> Reference<'a> {
    /// Makes the weights.
    pub fn new(network: &'a Network) -> Self {
        let tensors = network.tensors().into_iter().enumerate();
        Self { network, weights: tensors.map(|(index, tensor)| network.weights(index, tensor)).collect() }
    }

    /// The answer to a request.
    pub fn answer(&self, seed: u64) -> Vec<f32> {
        let input = self.network.request(seed);
        let mut weights = self.weights.iter();
        let mut x = input.values;
        for (layer, shape) in self.network.steps() {
            let tensors: Vec<&[f32]> =
                weights.by_ref().take(layer.tensors(shape).len()).map(Vec::as_slice).collect();
            x = match (layer, tensors.as_slice()) {
                (Layer::Embedding { .. }, [table]) => embedding(x, shape, table, &input.entries),
                (Layer::Linear { inputs, outputs }, [matrix]) => linear(&x, matrix, inputs, outputs),
                (Layer::BiasRelu, [bias]) => bias_relu(x, bias),
                (Layer::Convolution { side, kernel, .. }, [windows, bias]) => {
                    convolution(&x, shape, windows, bias, side, kernel)
                }
                (Layer::Normalize, [gamma, beta]) => layer_norm(x, gamma, beta),
                (Layer::Softmax, []) => softmax(x, shape.columns),
                _ => unreachable!("a layer has the tensors that it says it has"),
            };
        }
        x
    }
}

/// Compares an answer with the right one.
pub fn first_difference(found: &[f32], expected: &[f32]) -> Option<Difference> {
    (0..found.len().max(expected.len())).find_map(|index| {
        let (found, expected) = (found.get(index).copied(), expected.get(index).copied());
        let close = match (found, expected) {
            // Written so that no comparison with a NaN makes it right.
            (Some(found), Some(expected)) => (found - expected).abs() <= TOLERANCE * expected.abs(),
            _ => false,
        };
        (!close).then_some(Difference { index, found, expected })
    })
}

fn embedding(mut x: Vec<f32>, shape: Shape, table: &[f32], entries: &[usize]) -> Vec<f32> {
    for (row, entry) in x.chunks_exact_mut(shape.columns).zip(entries) {
        let added = &table[entry * shape.columns..][..shape.columns];
        row.iter_mut().zip(added).for_each(|(x, added)| *x += added);
    }
    x
}

fn linear(x: &[f32], matrix: &[f32], inputs: usize, outputs: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len() / inputs * outputs);
    for row in x.chunks_exact(inputs) {
        let mut sums = vec![0.0; outputs];
        for (x, weights) in row.iter().zip(matrix.chunks_exact(outputs)) {
            sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum = x.mul_add(*weight, *sum));
        }
        out.extend(sums);
    }
    out
}

fn bias_relu(mut x: Vec<f32>, bias: &[f32]) -> Vec<f32> {
    for row in x.chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(x, bias)| *x = (*x + bias).max(0.0));
    }
    x
}

fn convolution(
    x: &[f32],
    shape: Shape,
    windows: &[f32],
    bias: &[f32],
    side: usize,
    kernel: usize,
) -> Vec<f32> {
    let padding = (kernel - 1) / 2;
    let mut out = Vec::with_capacity(bias.len() * shape.columns);
    for (window, bias) in windows.chunks_exact(shape.rows * kernel * kernel).zip(bias) {
        for at in 0..shape.columns {
            let (row, column) = (at / side, at % side);
            let mut sum = *bias;
            for (index, weight) in window.iter().enumerate() {
                let (channel, dy, dx) = (index / (kernel * kernel), index / kernel % kernel, index % kernel);
                // Below zero wraps to beyond the side.
                let (y, x_at) = ((row + dy).wrapping_sub(padding), (column + dx).wrapping_sub(padding));
                if y < side && x_at < side {
                    sum = x[channel * shape.columns + y * side + x_at].mul_add(*weight, sum);
                }
            }
            out.push(sum);
        }
    }
    out
}

fn layer_norm(mut x: Vec<f32>, gamma: &[f32], beta: &[f32]) -> Vec<f32> {
    let columns = gamma.len();
    for row in x.chunks_exact_mut(columns) {
        let mean = row.iter().sum::<f32>() / columns as f32;
        let squares = row.iter().fold(0.0, |sum, x| (x - mean).mul_add(x - mean, sum));
        let scale = 1.0 / (squares / columns as f32 + LAYER_NORM_EPSILON).sqrt();
        for ((x, gamma), beta) in row.iter_mut().zip(gamma).zip(beta) {
            *x = ((*x - mean) * scale).mul_add(*gamma, *beta);
        }
    }
    x
}

fn softmax(mut x: Vec<f32>, columns: usize) -> Vec<f32> {
    for row in x.chunks_exact_mut(columns) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = row.iter().map(|x| (x - largest).exp()).sum();
        row.iter_mut().for_each(|x| *x = (*x - largest).exp() / sum);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::super::network::Kind;
    use super::*;

    #[test]
    fn layers_compute_what_they_are_named_for() {
        let shape = Shape { rows: 2, columns: 2 };
        let table = [0.0, 0.0, 10.0, 20.0];
        assert_eq!(embedding(vec![1.0, 2.0, 3.0, 4.0], shape, &table, &[1, 0]), [11.0, 22.0, 3.0, 4.0]);
        assert_eq!(linear(&[1.0, 2.0], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3), [9.0, 12.0, 15.0]);
        assert_eq!(bias_relu(vec![1.0, -3.0, 0.5, 4.0], &[1.0, 2.0]), [2.0, 0.0, 1.5, 6.0]);
        let normal = layer_norm(vec![1.0, 3.0], &[1.0, 2.0], &[0.0, 5.0]);
        assert!((normal[0] + 1.0).abs() < 1e-4 && (normal[1] - 7.0).abs() < 1e-4, "{normal:?}");
        let third = softmax(vec![5.0, 5.0, 5.0], 3);
        assert!(third.iter().all(|x| (x - 1.0 / 3.0).abs() < 1e-6), "{third:?}");
    }

    #[test]
    fn a_convolution_sees_zeros_around_the_image() {
        let shape = Shape { rows: 1, columns: 4 };
        let ones = [1.0; 9];
        assert_eq!(convolution(&[1.0, 2.0, 3.0, 4.0], shape, &ones, &[0.5], 2, 3), [10.5; 4]);
        // Only the tap at row 0, column 1: what is above.
        let above = [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(convolution(&[1.0, 2.0, 3.0, 4.0], shape, &above, &[0.0], 2, 3), [0.0, 0.0, 1.0, 2.0]);
    }

    #[test]
    fn answers_are_distributions_that_depend_on_the_request_and_the_weights() {
        for kind in [Kind::Mlp, Kind::Convnet] {
            let (one, two) = (Network::new(kind, 1), Network::new(kind, 2));
            let reference = Reference::new(&one);
            let answer = reference.answer(7);
            for row in answer.chunks_exact(one.output().columns) {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{kind}: {row:?}");
                let largest = row.iter().copied().fold(0.0, f32::max);
                assert!((0.07..0.9).contains(&largest), "{kind}: {row:?} is flat or certain");
            }
            assert!(first_difference(&answer, &reference.answer(8)).is_some());
            assert!(first_difference(&answer, &Reference::new(&two).answer(7)).is_some());
            assert_eq!(first_difference(&answer, &reference.answer(7)), None);
        }
    }

    #[test]
    fn differences_are_found() {
        assert_eq!(first_difference(&[1.0, 2.0001], &[1.0, 2.0]), None);
        let off = Difference { index: 1, found: Some(2.001), expected: Some(2.0) };
        assert_eq!(first_difference(&[1.0, 2.001], &[1.0, 2.0]), Some(off));
        assert_eq!(first_difference(&[f32::NAN], &[1.0]).map(|difference| difference.index), Some(0));
        assert_eq!(first_difference(&[1.0], &[1.0, 2.0]).and_then(|difference| difference.found), None);
        assert_eq!(first_difference(&[1.0, 2.0], &[1.0]).map(|difference| difference.index), Some(1));
    }
}
