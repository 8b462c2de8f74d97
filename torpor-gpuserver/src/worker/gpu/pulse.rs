//! Whether the driver still answers: it is asked for the GPU's free memory on a thread of its own, so that a driver that
//! hangs does not keep the worker from saying so.

use crate::driver::Device;
use crate::worker::sync::lock;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use torpor_proto::error::CudaError;

/// How long the server's question may wait for the driver.
const PATIENCE: Duration = Duration::from_millis(50);

/// What the driver said last, and how long it has owed the next answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Beat {
    /// Free and total memory in bytes.
    pub(crate) memory: (u64, u64),
    /// How long it has not answered; zero if it has.
    pub(crate) silent: Duration,
}

/// A thread that asks the driver when told to.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    asked: u64,
    answered: u64,
    /// Since when the driver has been asked what it has not answered.
    begun: Option<Instant>,
    memory: (u64, u64),
}

impl Pulse {
    /// Starts the thread, which ends with the process.
    pub(crate) fn start(device: &Arc<Device>) -> io::Result<Arc<Self>> {
        let device = device.clone();
        let mut is_current = false;
        Self::start_asking(move || {
            if !is_current {
                device.make_current()?;
                is_current = true;
            }
            device.memory_info()
        })
    }

    fn start_asking(
        mut ask: impl FnMut() -> Result<(u64, u64), CudaError> + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        let pulse = Arc::new(Self::default());
        let its = pulse.clone();
        std::thread::Builder::new().name("pulse".to_owned()).spawn(move || {
            loop {
                let question = its.next_question();
                // A driver that answers with an error answers.
                let memory = ask().unwrap_or_default();
                let mut state = lock(&its.state);
                (state.memory, state.answered, state.begun) = (memory, question, None);
                drop(state);
                its.changed.notify_all();
            }
        })?;
        Ok(pulse)
    }

    fn next_question(&self) -> u64 {
        let state = lock(&self.state);
        let waited = self.changed.wait_while(state, |state| state.asked == state.answered);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.begun = Some(Instant::now());
        state.asked
    }

    /// Asks the driver, and waits a little for the answer.
    pub(crate) fn beat(&self) -> Beat {
        let mut state = lock(&self.state);
        state.asked += 1;
        let question = state.asked;
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(state, PATIENCE, |state| state.answered < question);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let silent = if state.answered >= question {
            Duration::ZERO
        } else {
            // Not begun yet if the machine is too busy to run the thread, which is no silence of the driver.
            state.begun.map_or(Duration::ZERO, |begun| begun.elapsed())
        };
        Beat { memory: state.memory, silent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_driver_that_hangs_is_told_by_how_long_it_has_been_silent() {
        let (answer, answers) = mpsc::channel();
        let pulse = Pulse::start_asking(move || Ok(answers.recv().unwrap_or_default())).unwrap();
        let first = pulse.beat();
        assert_eq!(first.memory, (0, 0));
        // On a busy machine the thread takes a while to ask at all.
        let mut second = pulse.beat();
        while second.silent.is_zero() {
            second = pulse.beat();
        }
        assert!(pulse.beat().silent > second.silent);
        // One answer is enough for all that was asked before it, and the next is prompt.
        (0..3).for_each(|_| answer.send((5, 8)).unwrap());
        let mut beat = pulse.beat();
        while beat.silent > Duration::ZERO {
            beat = pulse.beat();
            answer.send((5, 8)).unwrap();
        }
        assert_eq!(beat, Beat { memory: (5, 8), silent: Duration::ZERO });
    }
}
