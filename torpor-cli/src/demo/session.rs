//! The functions at work: they load, they are asked in turn, they end.

use super::DemoError;
use super::network::Network;
use super::process::{Event, FunctionProcess};
use super::protocol::{Answer, Message};
use super::random::Random;
use super::statistics::readable;
use super::verdict::Answered;
use crate::progress::Progress;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use torpor_gpuserver::server::size::ByteSize;

/// How long all functions may be silent while somebody waits for them.
const SILENCE: Duration = Duration::from_secs(120);

/// Of the order of requests and of the requests themselves.
const SEED: u64 = 20_241_123;

/// What the demo wants of a function.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// What it computes.
    pub network: Arc<Network>,
    /// Kernels of a request, where that is known.
    pub kernels: Option<usize>,
}

/// A function that is running, with what is known of it so far.
#[derive(Debug)]
pub struct Running {
    /// Which one.
    pub function: Function,
    /// Its process.
    pub process: FunctionProcess,
    /// From its start until it was ready.
    pub load: Option<Duration>,
    /// Bytes of weights on the GPU.
    pub loaded_bytes: u64,
    /// Its answers.
    pub answers: Vec<Answered>,
    /// How long each answer took.
    pub latencies: Vec<Duration>,
    /// How long the GPU took for each.
    pub gpu: Vec<Duration>,
}

impl Running {
    /// A function that was just started.
    pub fn new(function: Function, process: FunctionProcess) -> Self {
        Self {
            function,
            process,
            load: None,
            loaded_bytes: 0,
            answers: Vec::new(),
            latencies: Vec::new(),
            gpu: Vec::new(),
        }
    }
}

/// All functions, and what they say. Dropping it kills them.
#[derive(Debug)]
pub struct Session<'a> {
    /// By the number that their events have.
    pub functions: Vec<Running>,
    /// From all of them.
    pub events: &'a Receiver<Event>,
}

impl Session<'_> {
    /// Waits until all are ready, asks so many requests in all, and ends the functions.
    ///
    /// # Errors
    /// [`DemoError`] if one of them fails, or if the demo is to end.
    pub fn run(mut self, requests: usize) -> Result<Vec<Running>, DemoError> {
        self.load()?;
        self.ask(requests)?;
        self.end()?;
        Ok(self.functions)
    }

    fn load(&mut self) -> Result<(), DemoError> {
        let total = self.functions.iter().map(|running| running.function.network.weights_bytes()).sum();
        let mut progress = Progress::new("loading", total, |bytes| ByteSize(bytes).to_string());
        while self.functions.iter().any(|running| running.load.is_none()) {
            match next(self.events)? {
                Event::Said { function, message: Message::Loaded { bytes }, .. } => {
                    self.functions[function].loaded_bytes = bytes;
                    progress.show(self.functions.iter().map(|running| running.loaded_bytes).sum());
                }
                Event::Said { function, message: Message::Ready, at } => {
                    let running = &mut self.functions[function];
                    let took = at.duration_since(running.process.started());
                    running.load = Some(took);
                    let Function { name, network, .. } = &running.function;
                    let weights = ByteSize(network.weights_bytes());
                    progress
                        .line(&format!("{name}: {weights} of weights loaded, ready in {}", readable(took)));
                }
                other => return Err(self.unexpected(other)),
            }
        }
        Ok(())
    }

    /// Asks one request after another, so that none waits for another, in a seeded random order.
    fn ask(&mut self, requests: usize) -> Result<(), DemoError> {
        let mut random = Random::new(SEED, 0);
        let mut order: Vec<usize> = (0..requests).map(|request| request % self.functions.len()).collect();
        random.shuffle(&mut order);
        let mut progress = Progress::new("asking", requests as u64, |count| count.to_string());
        for (done, number) in order.into_iter().enumerate() {
            progress.show(done as u64);
            let seed = random.below(1_000_000) as u64;
            let asked = Instant::now();
            // If the function is gone, its last words say why, and they come as an event.
            let _ = self.functions[number].process.request(seed);
            match next(self.events)? {
                Event::Said { function, message: Message::Answer(answer), at }
                    if function == number && answer.seed == seed =>
                {
                    let Answer { seed, gpu_us, values } = answer;
                    let running = &mut self.functions[number];
                    running.latencies.push(at.duration_since(asked));
                    running.gpu.push(Duration::from_micros(gpu_us));
                    running.answers.push(Answered { seed, values });
                }
                other => return Err(self.unexpected(other)),
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), DemoError> {
        self.functions.iter_mut().for_each(|running| running.process.end_requests());
        let mut ended = 0;
        while ended < self.functions.len() {
            match next(self.events)? {
                Event::Ended { .. } => ended += 1,
                other => return Err(self.unexpected(other)),
            }
        }
        for running in &mut self.functions {
            let reason = match running.process.wait() {
                Some(status) if status.success() => continue,
                Some(status) => format!("it ended with {status}"),
                None => "it does not end".to_owned(),
            };
            return Err(DemoError::Function { function: running.function.name, reason });
        }
        Ok(())
    }

    /// What an event means that should not come now.
    fn unexpected(&mut self, event: Event) -> DemoError {
        let (number, reason) = match event {
            Event::Interrupted(signal) => return DemoError::Interrupted(signal),
            Event::Checked { function, .. } => (function, "it was checked too early".to_owned()),
            Event::Said { function, message: Message::Failed { reason }, .. } => (function, reason),
            Event::Said { function, message, .. } => (function, format!("it says {message:?} out of turn")),
            Event::Garbled { function, garbled } => (function, format!("it says {garbled}")),
            Event::Ended { function } => {
                let status = self.functions[function].process.wait();
                (
                    function,
                    status.map_or("it says nothing more".to_owned(), |status| {
                        format!("it ended with {status}")
                    }),
                )
            }
        };
        DemoError::Function { function: self.functions[number].function.name, reason }
    }
}

/// The next event.
///
/// # Errors
/// [`DemoError::Silence`] if there is none for a long time.
pub fn next(events: &Receiver<Event>) -> Result<Event, DemoError> {
    events.recv_timeout(SILENCE).map_err(|_| DemoError::Silence { seconds: SILENCE.as_secs() })
}
