//! What functions take on GPUs that have always one more request: clocks and caches are warm, and one begins as soon as another ends.

use crate::calibrate::node::Node;
use crate::calibrate::{Calibrate, Function};
use crate::error::CliError;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Who asks the functions of a GPU: while one has its answer on its way, the other's request is there.
const ASKERS: usize = 2;

/// A model's functions.
#[derive(Clone, Debug, Default)]
pub struct Crowded {
    /// From the end of one to the end of the next on its GPU, in milliseconds: the mean.
    pub each_ms: f64,
    /// What the functions had each request for.
    pub turns_ms: Vec<f64>,
}

impl Calibrate {
    /// Model by model, on all GPUs at once.
    pub(super) fn crowd(
        &self,
        node: &mut Node,
        functions: &[Function<'_>],
    ) -> Result<BTreeMap<String, Crowded>, CliError> {
        let gpus = node.gpus()?.len().max(1);
        let mut by_model: BTreeMap<&str, Vec<Vec<&str>>> = BTreeMap::new();
        for function in functions {
            let by_gpu = by_model.entry(function.model).or_insert_with(|| vec![Vec::new(); gpus]);
            let Some(gpu) = (0..gpus).min_by_key(|&gpu| by_gpu[gpu].len()) else { continue };
            node.load(function.name, Some(gpu as u32))?;
            by_gpu[gpu].push(function.name);
        }
        let crowded =
            by_model.into_iter().map(|(model, by_gpu)| Ok((model.to_owned(), self.crowd_of(&by_gpu)?)));
        crowded.collect()
    }

    fn crowd_of(&self, by_gpu: &[Vec<&str>]) -> Result<Crowded, CliError> {
        let asked = std::thread::scope(|scope| {
            let of_gpu = |functions: &'_ [&'_ str]| -> Result<(Duration, Vec<f64>), CliError> {
                let began = Instant::now();
                let turns = self.line(functions)?;
                Ok((began.elapsed(), turns))
            };
            let lines = by_gpu.iter().filter(|functions| !functions.is_empty());
            let lines: Vec<_> = lines.map(|functions| scope.spawn(move || of_gpu(functions))).collect();
            let lines = lines
                .into_iter()
                .map(|line| line.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            lines.collect::<Result<Vec<_>, _>>()
        })?;
        let (mut took, mut turns_ms) = (Duration::ZERO, Vec::new());
        for (of_gpu, turns) in asked {
            took += of_gpu;
            turns_ms.extend(turns);
        }
        Ok(Crowded { each_ms: 1e3 * took.as_secs_f64() / turns_ms.len().max(1) as f64, turns_ms })
    }

    /// The functions of one GPU, by all askers, each of whom begins with another one. What each request took.
    fn line(&self, functions: &[&str]) -> Result<Vec<f64>, CliError> {
        let directory = self.directory.server();
        let ask = |asker: usize| -> Result<Vec<f64>, CliError> {
            let mut node = Node::connect(&directory, &self.url)?;
            let first = asker * functions.len() / ASKERS;
            let requests = self.rounds as usize * functions.len() / ASKERS;
            (first..first + requests.max(1))
                .map(|at| Ok(node.ask(functions[at % functions.len()])?.turn_ms))
                .collect()
        };
        let ask = &ask;
        std::thread::scope(|scope| {
            let askers: Vec<_> = (0..ASKERS).map(|asker| scope.spawn(move || ask(asker))).collect();
            let turns = askers
                .into_iter()
                .map(|asker| asker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            turns.collect::<Result<Vec<_>, _>>().map(|turns| turns.concat())
        })
    }
}
