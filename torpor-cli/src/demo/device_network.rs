//! A network on a GPU: its weights in device memory, its layers as launches of the kernels in `evaluation/kernels`.

use super::network::{LAYER_NORM_EPSILON, Layer, Network, Shape};
use crate::driver_api::{Argument, Arguments, Driver, DriverError, LaunchShape};
use std::collections::HashMap;

/// How much is copied before progress is told.
const CHUNK_ELEMENTS: usize = 1 << 18;

/// The PTX of the kernels by their names, one module each.
const MODULES: [(&str, &str); 6] = [
    ("vector_add", include_str!("../../../evaluation/kernels/vector_add.ptx")),
    ("sgemm_tiled", include_str!("../../../evaluation/kernels/sgemm_tiled.ptx")),
    ("bias_relu", include_str!("../../../evaluation/kernels/bias_relu.ptx")),
    ("convolution", include_str!("../../../evaluation/kernels/convolution.ptx")),
    ("layer_norm", include_str!("../../../evaluation/kernels/layer_norm.ptx")),
    ("softmax", include_str!("../../../evaluation/kernels/softmax.ptx")),
];

/// A network that is ready for requests, on the current context. Frees what it holds when dropped.
pub struct DeviceNetwork<'a> {
    driver: &'a Driver,
    network: &'a Network,
    stream: usize,
    began: usize,
    ended: usize,
    modules: Vec<usize>,
    functions: HashMap<&'static str, usize>,
    /// In the order of [`Network::tensors`].
    weights: Vec<u64>,
    /// A layer reads the first and writes the second, or works in the first alone.
    activations: [u64; 2],
    input: Vec<f32>,
    output: Vec<f32>,
}

impl<'a> DeviceNetwork<'a> {
    /// Loads the kernels and copies the weights, telling now and then how many bytes of them are there.
    ///
    /// # Errors
    /// What the driver says.
    pub fn load(
        driver: &'a Driver,
        network: &'a Network,
        mut progress: impl FnMut(u64),
    ) -> Result<Self, DriverError> {
        let mut loaded = Self {
            driver,
            network,
            stream: driver.create_stream()?,
            began: driver.create_event()?,
            ended: driver.create_event()?,
            modules: Vec::new(),
            functions: HashMap::new(),
            weights: Vec::new(),
            activations: [0; 2],
            input: Vec::new(),
            output: vec![0.0; network.output().elements()],
        };
        for (kernel, ptx) in MODULES {
            let module = driver.load_module(ptx)?;
            loaded.modules.push(module);
            loaded.functions.insert(kernel, driver.function(module, kernel)?);
        }
        let mut bytes = 0;
        for (index, tensor) in network.tensors().into_iter().enumerate() {
            loaded.input = network.weights(index, tensor);
            let address = driver.allocate(tensor.elements * size_of::<f32>())?;
            loaded.weights.push(address);
            let mut to = address;
            for chunk in loaded.input.chunks(CHUNK_ELEMENTS) {
                // SAFETY: `input` keeps the numbers until the stream is synchronized, below or when dropped.
                unsafe { driver.copy_in(to, chunk, loaded.stream) }?;
                driver.synchronize(loaded.stream)?;
                to += size_of_val(chunk) as u64;
                bytes += size_of_val(chunk) as u64;
                progress(bytes);
            }
        }
        let shapes = network.steps().into_iter().map(|(layer, shape)| (shape, layer.output(shape)));
        let largest = shapes.map(|(from, to)| from.elements().max(to.elements())).max().unwrap_or(0);
        for activation in &mut loaded.activations {
            *activation = driver.allocate(largest * size_of::<f32>())?;
        }
        Ok(loaded)
    }

    /// Computes the answer to a request. Also returns how long the GPU took, in microseconds by its own clock.
    ///
    /// # Errors
    /// What the driver says.
    pub fn answer(&mut self, seed: u64) -> Result<(&[f32], u64), DriverError> {
        let request = self.network.request(seed);
        self.input = request.values;
        let enqueued = self.enqueue(&request.entries);
        // Even if not all could be enqueued: copies from `input` may be.
        self.driver.synchronize(self.stream)?;
        enqueued?;
        let gpu_us = self.driver.elapsed_ms(self.began, self.ended)? * 1e3;
        Ok((&self.output, gpu_us as u64))
    }

    fn enqueue(&mut self, entries: &[usize]) -> Result<(), DriverError> {
        let (driver, stream) = (self.driver, self.stream);
        let [mut from, mut to] = self.activations;
        driver.record(self.began, stream)?;
        // SAFETY: `answer`, the only caller, synchronizes before anybody touches `input`.
        unsafe { driver.copy_in(from, &self.input, stream) }?;
        let mut tensors = 0;
        for (layer, shape) in self.network.steps() {
            let count = layer.tensors(shape).len();
            let weights = &self.weights[tensors..tensors + count];
            tensors += count;
            let in_place = self.launch_layer(layer, shape, weights, entries, from, to)?;
            if !in_place {
                (from, to) = (to, from);
            }
        }
        // SAFETY: likewise `output`.
        unsafe { driver.copy_out(&mut self.output, from, stream) }?;
        driver.record(self.ended, stream)
    }

    /// Launches a layer's kernels. Returns whether the result is where the input was.
    fn launch_layer(
        &self,
        layer: Layer,
        shape: Shape,
        weights: &[u64],
        entries: &[usize],
        from: u64,
        to: u64,
    ) -> Result<bool, DriverError> {
        use Argument::{Address, Float, Int};
        let Shape { rows, columns } = shape;
        let at = |address: u64, element: usize| Address(address + (element * size_of::<f32>()) as u64);
        let blocks = |elements: usize, block: usize| elements.div_ceil(block);
        // The arguments are those that the kernels' sources declare.
        match (layer, weights) {
            (Layer::Embedding { .. }, [table]) => {
                for (row, entry) in entries.iter().enumerate() {
                    let (x, added) = (at(from, row * columns), at(*table, entry * columns));
                    let arguments = [x, added, x, Int(int(columns))];
                    self.launch("vector_add", [blocks(columns, 128), 1, 1], [128, 1, 1], 0, &arguments)?;
                }
                return Ok(true);
            }
            (Layer::Linear { inputs, outputs }, [matrix]) => {
                let rows = shape.elements() / inputs;
                let arguments = [
                    Address(from),
                    Address(*matrix),
                    Address(to),
                    Int(int(rows)),
                    Int(int(outputs)),
                    Int(int(inputs)),
                ];
                let grid = [blocks(outputs, 16), blocks(rows, 16), 1];
                self.launch("sgemm_tiled", grid, [16, 16, 1], 0, &arguments)?;
            }
            (Layer::BiasRelu, [bias]) => {
                let arguments = [Address(from), Address(*bias), Int(int(rows)), Int(int(columns / 4))];
                self.launch("bias_relu", [blocks(columns / 4, 64), rows, 1], [64, 1, 1], 0, &arguments)?;
                return Ok(true);
            }
            (Layer::Convolution { out_channels, side, kernel }, [windows, bias]) => {
                let sizes = [rows, out_channels, side, side, kernel].map(|size| Int(int(size)));
                let arrays = [from, *windows, *bias, to].map(Address);
                let grid = [blocks(side, 16), blocks(side, 8), out_channels];
                self.launch("convolution", grid, [16, 8, 1], 0, &[&arrays[..], &sizes].concat())?;
            }
            (Layer::Normalize, [gamma, beta]) => {
                let arrays = [from, *gamma, *beta, to].map(Address);
                let sizes = [Int(int(columns)), Float(LAYER_NORM_EPSILON)];
                self.launch("layer_norm", [rows, 1, 1], [128, 1, 1], 0, &[&arrays[..], &sizes].concat())?;
            }
            (Layer::Softmax, []) => {
                let arguments = [Address(from), Address(to), Int(int(columns))];
                self.launch("softmax", [rows, 1, 1], [32, 1, 1], size_of::<f32>(), &arguments)?;
            }
            _ => unreachable!("a layer has the tensors that it says it has"),
        }
        Ok(false)
    }

    fn launch(
        &self,
        kernel: &str,
        grid: [usize; 3],
        block: [u32; 3],
        shared_bytes: usize,
        arguments: &[Argument],
    ) -> Result<(), DriverError> {
        let shape = LaunchShape { grid: grid.map(extent), block, shared_bytes: extent(shared_bytes) };
        // SAFETY: `launch_layer`, the only caller, keeps to the kernels' sources.
        unsafe {
            self.driver.launch(self.functions[kernel], shape, self.stream, &mut Arguments::new(arguments))
        }
    }

    /// Frees everything, and says what went wrong with that.
    ///
    /// # Errors
    /// What the driver says, of the first call that failed.
    pub fn unload(mut self) -> Result<(), DriverError> {
        self.release()
    }

    fn release(&mut self) -> Result<(), DriverError> {
        let driver = self.driver;
        // First: afterwards no copy reads `input` or writes `output`.
        let mut done = driver.synchronize(self.stream);
        let mut also = |result: Result<(), DriverError>| {
            if done.is_ok() {
                done = result;
            }
        };
        let allocated = self.activations.iter_mut().map(std::mem::take).filter(|&address| address != 0);
        allocated.chain(self.weights.drain(..)).for_each(|address| also(driver.free(address)));
        self.modules.drain(..).for_each(|module| also(driver.unload_module(module)));
        for event in [&mut self.began, &mut self.ended].map(std::mem::take) {
            also(driver.destroy_event(event));
        }
        also(driver.destroy_stream(std::mem::take(&mut self.stream)));
        done
    }
}

impl Drop for DeviceNetwork<'_> {
    fn drop(&mut self) {
        if self.stream != 0 {
            // The program is about to end with the error that led here.
            let _ = self.release();
        }
    }
}

/// A size as a kernel's `int`: the demo's are small.
fn int(size: usize) -> i32 {
    i32::try_from(size).expect("a size in a demo network fits an int")
}

/// A size as a part of a launch's shape: the demo's are small.
fn extent(size: usize) -> u32 {
    u32::try_from(size).expect("a size in a demo network fits a launch")
}
