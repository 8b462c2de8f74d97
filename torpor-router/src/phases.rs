//! The phases of a request, as its client reads them: where the time went, and what it began with.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use std::fmt::Write;
use std::time::Duration;
use torpor_proto::control::admin::RequestCost;

/// What the request began with: see [`Start`].
pub const START: HeaderName = HeaderName::from_static("x-torpor-start");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// What a request began with, as the node server saw it happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It waited for a process to start.
    Cold,
    /// Memory of its process had to come to the GPU.
    Swap,
    /// All memory was there.
    Hot,
}

impl Start {
    /// The word in headers, logs and spans.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Swap => "swap",
            Self::Hot => "hot",
        }
    }
}

/// Where the time of a request went, until its answer began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phases {
    /// Whether it waited for a process to start.
    pub cold: bool,
    /// From its arrival until a process and the gate took it.
    pub queue: Duration,
    /// From then until its answer began.
    pub function: Duration,
    /// What of that its process spent how, if the node server says.
    pub cost: Option<RequestCost>,
}

impl Phases {
    /// What it began with; `None` if the node server does not know the process, or the process had no turn on a GPU.
    #[must_use]
    pub fn start(&self) -> Option<Start> {
        match &self.cost {
            _ if self.cold => Some(Start::Cold),
            Some(cost) if cost.swaps > 0 => Some(Start::Swap),
            // It may have the turn still that another request was given.
            Some(cost) if cost.turns > 0 || cost.gpu_us > 0 => Some(Start::Hot),
            _ => None,
        }
    }

    /// How long its process waited for the GPU, how long memory took to come, and how long the GPU was used.
    #[must_use]
    pub fn on_gpu(&self) -> Option<(Duration, Duration, Duration)> {
        let RequestCost { waited_us, swapping_us, gpu_us, .. } = self.cost?;
        let [bind, swap, gpu] = [waited_us, swapping_us, gpu_us].map(Duration::from_micros);
        Some((bind, swap, gpu))
    }

    /// The GPU that its process was on when its answer began, as the driver counts.
    #[must_use]
    pub fn gpu(&self) -> Option<u32> {
        self.cost?.gpu
    }

    /// Says so in an answer's head.
    pub fn tell(&self, headers: &mut HeaderMap) {
        // What a function says of that is not what happened here.
        headers.remove(START);
        if let Some(start) = self.start() {
            headers.insert(START, HeaderValue::from_static(start.word()));
        }
        let mut timing = String::new();
        let mut phase = |name: &str, time: Duration, of: Option<u32>| {
            let separator = if timing.is_empty() { "" } else { ", " };
            // A String takes all that is written.
            let _ = write!(timing, "{separator}{name};dur={:.3}", time.as_secs_f64() * 1e3);
            if let Some(number) = of {
                let _ = write!(timing, ";desc={number}");
            }
        };
        phase("queue", self.queue, None);
        phase("function", self.function, None);
        if let Some((bind, swap, gpu)) = self.on_gpu() {
            phase("bind", bind, None);
            phase("swap", swap, None);
            phase("gpu", gpu, self.gpu());
        }
        if let Ok(timing) = HeaderValue::from_str(&timing) {
            // Beside what the function says of itself.
            headers.append(SERVER_TIMING, timing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(phases: Phases) -> (Option<String>, String) {
        let mut headers = HeaderMap::new();
        phases.tell(&mut headers);
        let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        (text(START), text(SERVER_TIMING).unwrap())
    }

    #[test]
    fn a_start_is_what_happened_and_nothing_if_nobody_knows() {
        let queue = Duration::from_micros(1500);
        let phases = Phases { queue, function: Duration::from_millis(20), ..Phases::default() };
        assert_eq!(told(phases), (None, "queue;dur=1.500, function;dur=20.000".to_owned()));
        assert_eq!(told(Phases { cold: true, ..phases }).0.unwrap(), "cold");
        let cost =
            RequestCost { known: true, turns: 1, gpu_us: 9000, gpu: Some(3), ..RequestCost::default() };
        let (start, timing) = told(Phases { cost: Some(cost), ..phases });
        assert_eq!(start.unwrap(), "hot");
        assert!(timing.ends_with(", bind;dur=0.000, swap;dur=0.000, gpu;dur=9.000;desc=3"), "{timing}");
        let cost = RequestCost { swaps: 1, swapping_us: 3000, ..cost };
        assert_eq!(told(Phases { cost: Some(cost), ..phases }).0.unwrap(), "swap");
        let turn_of_another = RequestCost { known: true, gpu_us: 5, ..RequestCost::default() };
        assert_eq!(told(Phases { cost: Some(turn_of_another), ..phases }).0.unwrap(), "hot");
        let never_on_gpu = RequestCost { known: true, ..RequestCost::default() };
        assert_eq!(told(Phases { cost: Some(never_on_gpu), ..phases }).0, None);
    }
}
