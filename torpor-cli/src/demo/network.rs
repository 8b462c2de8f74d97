//! The networks that the functions compute, as data: the GPU program and the reference both walk the same layers.
//!
//! An activation is a matrix, row-major. Weights and inputs follow from seeds, so nobody sends them to anybody.

use super::random::Random;
use std::fmt;

/// Added to a variance before its root is taken.
pub const LAYER_NORM_EPSILON: f32 = 1e-5;

/// Rows and columns of an activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub rows: usize,
    pub columns: usize,
}

impl Shape {
    /// Numbers in it.
    pub fn elements(self) -> usize {
        self.rows * self.columns
    }
}

/// A step from one activation to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Adds to each row the row of a table that the request names for it.
    Embedding { entries: usize },
    /// Multiplies by a matrix of `inputs` × `outputs`; the activation is read as rows of `inputs`.
    Linear { inputs: usize, outputs: usize },
    /// max(x + bias of the column, 0); whole multiples of four columns.
    BiasRelu,
    /// Convolves square images of `side` × `side`, one per row, with a `kernel` × `kernel` window, zeros around.
    Convolution { out_channels: usize, side: usize, kernel: usize },
    /// Normalizes each row, then scales and shifts each column.
    Normalize,
    /// Makes each row a distribution.
    Softmax,
}

/// Some weights: `elements` numbers within `spread` of `center`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tensor {
    pub elements: usize,
    pub center: f32,
    pub spread: f32,
}

impl Layer {
    /// The shape of the result.
    pub fn output(self, shape: Shape) -> Shape {
        match self {
            Self::Linear { inputs, outputs } => Shape { rows: shape.elements() / inputs, columns: outputs },
            Self::Convolution { out_channels, .. } => Shape { rows: out_channels, ..shape },
            Self::Embedding { .. } | Self::BiasRelu | Self::Normalize | Self::Softmax => shape,
        }
    }

    /// Its weights, given the shape of what comes in.
    pub fn tensors(self, shape: Shape) -> Vec<Tensor> {
        // What comes out of a layer with so many inputs is then about as large as what goes in.
        let balanced = |elements, inputs: usize| Tensor {
            elements,
            center: 0.0,
            spread: (3.0 / inputs as f64).sqrt() as f32,
        };
        let near = |elements, center| Tensor { elements, center, spread: 0.1 };
        match self {
            Self::Embedding { entries } => vec![balanced(entries * shape.columns, 3)],
            Self::Linear { inputs, outputs } => vec![balanced(inputs * outputs, inputs)],
            Self::BiasRelu => vec![near(shape.columns, 0.0)],
            Self::Convolution { out_channels, kernel, .. } => {
                let window = shape.rows * kernel * kernel;
                vec![balanced(out_channels * window, window), near(out_channels, 0.0)]
            }
            Self::Normalize => vec![near(shape.columns, 1.0), near(shape.columns, 0.0)],
            Self::Softmax => vec![],
        }
    }

    /// Kernels that a GPU runs for it.
    pub fn launches(self, shape: Shape) -> usize {
        if matches!(self, Self::Embedding { .. }) { shape.rows } else { 1 }
    }
}

/// What a demo function computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Rows of an embedding table, two hidden layers
    Mlp,
    /// Two convolutions over a small image, a classifier
    Convnet,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Mlp => "mlp",
            Self::Convnet => "convnet",
        })
    }
}

/// Layers with weights that follow from a seed.
#[derive(Debug)]
pub struct Network {
    pub input: Shape,
    pub layers: Vec<Layer>,
    seed: u64,
}

/// What a request asks: an activation, and for each of its rows a row of the embedding table if there is one.
#[derive(Debug)]
pub struct Input {
    pub values: Vec<f32>,
    pub entries: Vec<usize>,
}

impl Network {
    /// A network of a kind. The sizes keep an interpreter busy for some 50 ms a request.
    pub fn new(kind: Kind, seed: u64) -> Self {
        match kind {
            Kind::Mlp => {
                let (rows, columns, outputs) = (16, 128, 16);
                let hidden = Layer::Linear { inputs: columns, outputs: columns };
                let layers = vec![
                    Layer::Embedding { entries: 1 << 15 },
                    hidden,
                    Layer::BiasRelu,
                    hidden,
                    Layer::BiasRelu,
                    Layer::Normalize,
                    Layer::Linear { inputs: columns, outputs },
                    Layer::Softmax,
                ];
                Self { input: Shape { rows, columns }, layers, seed }
            }
            Kind::Convnet => {
                let (side, out_channels, outputs) = (16, 8, 16);
                let convolution = Layer::Convolution { out_channels, side, kernel: 3 };
                let layers = vec![
                    convolution,
                    Layer::BiasRelu,
                    convolution,
                    Layer::BiasRelu,
                    Layer::Normalize,
                    Layer::Linear { inputs: out_channels * side * side, outputs },
                    Layer::Softmax,
                ];
                Self { input: Shape { rows: 3, columns: side * side }, layers, seed }
            }
        }
    }

    /// Each layer with the shape of what comes into it.
    pub fn steps(&self) -> Vec<(Layer, Shape)> {
        let mut shape = self.input;
        let step = |&layer: &Layer| {
            let output = layer.output(shape);
            (layer, std::mem::replace(&mut shape, output))
        };
        self.layers.iter().map(step).collect()
    }

    /// The shape of an answer.
    pub fn output(&self) -> Shape {
        self.layers.iter().fold(self.input, |shape, layer| layer.output(shape))
    }

    /// All weights, in the order of the layers.
    pub fn tensors(&self) -> Vec<Tensor> {
        self.steps().into_iter().flat_map(|(layer, shape)| layer.tensors(shape)).collect()
    }

    /// The bytes of all weights.
    pub fn weights_bytes(&self) -> u64 {
        self.tensors().iter().map(|tensor| (tensor.elements * size_of::<f32>()) as u64).sum()
    }

    /// Kernels that a request runs.
    pub fn launches(&self) -> usize {
        self.steps().into_iter().map(|(layer, shape)| layer.launches(shape)).sum()
    }

    /// The numbers of the `index`-th of [`Self::tensors`].
    pub fn weights(&self, index: usize, tensor: Tensor) -> Vec<f32> {
        let mut random = Random::new(self.seed, index as u64);
        (0..tensor.elements).map(|_| random.uniform() * tensor.spread + tensor.center).collect()
    }

    /// What the request with a seed asks.
    pub fn request(&self, seed: u64) -> Input {
        let mut random = Random::new(seed, 0);
        let values = (0..self.input.elements()).map(|_| random.uniform()).collect();
        let mut random = Random::new(seed, 1);
        let entries = self.layers.iter().find_map(|layer| match layer {
            Layer::Embedding { entries } => {
                Some((0..self.input.rows).map(|_| random.below(*entries)).collect())
            }
            _ => None,
        });
        Input { values, entries: entries.unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_fit_from_layer_to_layer() {
        for kind in [Kind::Mlp, Kind::Convnet] {
            let network = Network::new(kind, 1);
            for (layer, shape) in network.steps() {
                match layer {
                    Layer::Linear { inputs, .. } => assert_eq!(shape.elements() % inputs, 0, "{kind}"),
                    Layer::Convolution { side, .. } => assert_eq!(shape.columns, side * side),
                    Layer::BiasRelu => assert_eq!(shape.columns % 4, 0),
                    _ => {}
                }
            }
            assert_eq!(network.output().columns, 16);
        }
        assert_eq!(Network::new(Kind::Mlp, 1).launches(), 16 + 7);
    }

    #[test]
    fn seeds_make_the_difference() {
        let (one, two) = (Network::new(Kind::Convnet, 1), Network::new(Kind::Convnet, 2));
        let tensor = one.tensors()[0];
        assert_eq!(one.weights(0, tensor), Network::new(Kind::Convnet, 1).weights(0, tensor));
        assert_ne!(one.weights(0, tensor), two.weights(0, tensor));
        assert_ne!(one.request(1).values, one.request(2).values);
        let mlp = Network::new(Kind::Mlp, 1);
        assert_ne!(mlp.request(1).entries, mlp.request(2).entries);
    }
}
