//! What people do without Torpor: a native process for each function, for ever or as long as it is worth it. Virtual time.
//!
//! A process is on one GPU, with its weights and what a native process has beside them, and requests of all processes of a GPU are
//! answered one after the other. Kept alive, a process is started when its function is asked, ends when it was idle for its window,
//! and earlier if another one needs its place and its window is over; without a place requests wait.

use crate::load_test::record::{Outcome, Record};
use crate::simulate::profile::Profile;
use crate::simulate::work::{Tally, Work, record};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

/// How long processes live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lives {
    /// From the beginning to the end, those that fit.
    Forever,
    /// Until nobody has asked for so long as 99 of 100 of its function's gaps were in the past.
    Window,
    /// The same of all gaps, those to come included: what nobody can know.
    Oracle,
}

/// What a function that has had no requests yet is kept alive for.
const FIRST_WINDOW: Duration = Duration::from_secs(60);

/// Gaps of the past that a window is made of.
const MEMORY: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Arrive(usize),
    Started(usize),
    Finish { gpu: usize, request: usize },
    Expire(usize),
}

#[derive(Debug, Default)]
struct Process {
    gpu: Option<usize>,
    ready: bool,
    waiting: VecDeque<usize>,
    last_end: Duration,
    under_way: usize,
    last_arrival: Option<Duration>,
    gaps: VecDeque<Duration>,
}

impl Process {
    /// How long it is kept without a request.
    fn window(&self) -> Duration {
        let mut gaps = Vec::from_iter(self.gaps.iter().copied());
        gaps.sort_unstable();
        let rank = (gaps.len() * 99).div_ceil(100);
        rank.checked_sub(1).map_or(FIRST_WINDOW, |rank| gaps[rank])
    }

    fn is_idle(&self) -> bool {
        self.ready && self.under_way == 0
    }
}

/// The node of a baseline.
struct Baseline<'a> {
    work: &'a Work<'a>,
    profile: &'a Profile,
    lives: Lives,
    now: Duration,
    counter: u64,
    steps: BinaryHeap<Reverse<(Duration, u64, Step)>>,
    processes: Vec<Process>,
    /// Requests that wait for each GPU; the first is under way.
    lines: Vec<VecDeque<usize>>,
    free_bytes: Vec<u64>,
    /// Functions whose process has no place.
    homeless: VecDeque<usize>,
    tally: Tally,
}

/// Until every request has ended.
pub fn run(work: &Work<'_>, profile: &Profile, lives: Lives) -> (Vec<Record>, Tally) {
    let gpus = profile.topology.gpus.len();
    let mut node = Baseline {
        work,
        profile,
        lives,
        now: Duration::ZERO,
        counter: 0,
        steps: BinaryHeap::new(),
        processes: work.functions.iter().map(|_| Process::default()).collect(),
        lines: vec![VecDeque::new(); gpus],
        free_bytes: vec![profile.gpu_memory.0; gpus],
        homeless: VecDeque::new(),
        tally: Tally { busy: vec![Duration::ZERO; gpus], ..Tally::default() },
    };
    if lives == Lives::Forever {
        for function in 0..work.functions.len() {
            node.processes[function].ready = node.place(function);
        }
    }
    if lives == Lives::Oracle {
        let mut last: Vec<Option<Duration>> = vec![None; work.functions.len()];
        for request in &work.requests {
            if let Some(last) = last[request.function].replace(request.at) {
                node.processes[request.function].gaps.push_back(request.at - last);
            }
        }
    }
    for (id, request) in work.requests.iter().enumerate() {
        node.at(request.at, Step::Arrive(id));
    }
    node.run()
}

impl Baseline<'_> {
    fn at(&mut self, at: Duration, step: Step) {
        self.counter += 1;
        self.steps.push(Reverse((at, self.counter, step)));
    }

    fn bytes(&self, function: usize) -> u64 {
        self.work.functions[function].model.bytes + self.profile.native_overhead.0
    }

    /// Gives a process the GPU with most free memory that has enough.
    fn place(&mut self, function: usize) -> bool {
        let bytes = self.bytes(function);
        let fits = (0..self.free_bytes.len()).filter(|&gpu| self.free_bytes[gpu] >= bytes);
        let Some(gpu) = fits.max_by_key(|&gpu| (self.free_bytes[gpu], Reverse(gpu))) else { return false };
        self.free_bytes[gpu] -= bytes;
        self.processes[function].gpu = Some(gpu);
        true
    }

    fn run(mut self) -> (Vec<Record>, Tally) {
        let mut records: Vec<Option<Record>> = vec![None; self.work.requests.len()];
        while let Some(Reverse((at, _, step))) = self.steps.pop() {
            self.now = at;
            match step {
                Step::Arrive(id) => self.arrive(id, &mut records),
                Step::Started(function) => {
                    self.processes[function].ready = true;
                    self.processes[function].last_end = self.now;
                    while let Some(id) = self.processes[function].waiting.pop_front() {
                        self.line_up(function, id);
                    }
                    self.expect_end(function);
                }
                Step::Finish { gpu, request } => self.finish(gpu, request, &mut records),
                Step::Expire(function) => self.expire(function),
            }
        }
        (records.into_iter().flatten().collect(), self.tally)
    }

    fn arrive(&mut self, id: usize, records: &mut [Option<Record>]) {
        let function = self.work.requests[id].function;
        let now = self.now;
        let process = &mut self.processes[function];
        if let (Some(last), Lives::Window) = (process.last_arrival.replace(now), self.lives) {
            process.gaps.push_back(now - last);
            if process.gaps.len() > MEMORY {
                process.gaps.pop_front();
            }
        }
        if process.ready {
            return self.line_up(function, id);
        }
        if self.lives == Lives::Forever {
            let request = &self.work.requests[id];
            records[id] = Some(record(
                request,
                &self.work.functions[function],
                Duration::ZERO,
                Outcome::Unsent,
                "none",
            ));
            return;
        }
        process.waiting.push_back(id);
        if process.gpu.is_none() && !self.homeless.contains(&function) {
            self.homeless.push_back(function);
            self.house();
        }
    }

    /// Starts processes for those that have none, as far as there are places.
    fn house(&mut self) {
        while let Some(&function) = self.homeless.front() {
            if !self.place(function) {
                return;
            }
            self.homeless.pop_front();
            self.tally.starts += 1;
            let start = Duration::from_secs_f64(self.profile.native_start_ms / 1e3);
            self.at(self.now + start, Step::Started(function));
        }
    }

    fn line_up(&mut self, function: usize, id: usize) {
        let Some(gpu) = self.processes[function].gpu else { return };
        self.processes[function].under_way += 1;
        self.lines[gpu].push_back(id);
        if self.lines[gpu].len() == 1 {
            self.begin(gpu);
        }
    }

    fn begin(&mut self, gpu: usize) {
        let Some(&request) = self.lines[gpu].front() else { return };
        let takes = self.work.functions[self.work.requests[request].function].model.warm();
        self.tally.busy[gpu] += takes;
        self.at(self.now + takes, Step::Finish { gpu, request });
    }

    fn finish(&mut self, gpu: usize, id: usize, records: &mut [Option<Record>]) {
        let request = &self.work.requests[id];
        let function = &self.work.functions[request.function];
        let latency = self.now - request.at + self.work.beside;
        let outcome = if latency > self.work.patience { Outcome::Timeout } else { Outcome::Ok };
        let cold = latency >= Duration::from_secs_f64(self.profile.native_start_ms / 1e3);
        let start = if cold { "cold" } else { "warm" };
        records[id] = Some(record(request, function, latency.min(self.work.patience), outcome, start));
        self.lines[gpu].pop_front();
        self.tally.length = self.now;
        let process = &mut self.processes[request.function];
        (process.under_way, process.last_end) = (process.under_way - 1, self.now);
        self.expect_end(request.function);
        self.begin(gpu);
    }

    fn expect_end(&mut self, function: usize) {
        if self.lives != Lives::Forever && self.processes[function].is_idle() {
            let window = self.processes[function].window();
            self.at(self.now + window, Step::Expire(function));
        }
    }

    fn expire(&mut self, function: usize) {
        let process = &self.processes[function];
        if process.is_idle() && self.now >= process.last_end + process.window() {
            let gpu = self.processes[function].gpu.take();
            self.processes[function].ready = false;
            if let Some(gpu) = gpu {
                self.free_bytes[gpu] += self.bytes(function);
            }
            self.house();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::work::{Function, Request};

    fn run_with(lives: Lives, functions: usize, at_ms: &[(u64, usize)]) -> (Vec<Record>, Tally) {
        let profile = Profile::find("v100x1").unwrap();
        let model = profile.model("resnet152").unwrap();
        let functions = (0..functions).map(|at| Function {
            name: format!("f{at}").into(),
            model,
            slo: Duration::from_millis(100),
        });
        let requests =
            at_ms.iter().map(|&(at, function)| Request { at: Duration::from_millis(at), function });
        let work = Work {
            functions: functions.collect(),
            requests: requests.collect(),
            patience: Duration::from_secs(60),
            beside: Duration::ZERO,
            percentile: 0.98,
        };
        run(&work, &profile, lives)
    }

    #[test]
    fn as_many_native_functions_are_served_as_fit_and_no_more() {
        // As many as in the paper.
        let (records, tally) =
            run_with(Lives::Forever, 40, &(0..40).map(|at| (at as u64 * 100, at)).collect::<Vec<_>>());
        assert_eq!(records.iter().filter(|record| record.outcome == Outcome::Ok).count(), 19);
        assert!(
            records.iter().filter(|record| record.outcome == Outcome::Ok).all(|one| one.latency_ms == 19.0)
        );
        assert_eq!((tally.starts, records.len()), (0, 40));
    }

    #[test]
    fn a_process_that_is_kept_alive_is_started_once_for_requests_within_its_window() {
        let (records, tally) = run_with(Lives::Window, 1, &[(0, 0), (30_000, 0), (40_000, 0), (200_000, 0)]);
        assert_eq!(tally.starts, 2);
        let starts: Vec<_> = records.iter().map(|record| record.start.as_str()).collect();
        assert_eq!(starts, ["cold", "warm", "warm", "cold"]);
        assert!((records[0].latency_ms - 4319.0).abs() < 1e-6);
    }

    #[test]
    fn requests_of_one_gpu_are_answered_one_after_the_other() {
        let (records, _) = run_with(Lives::Forever, 2, &[(0, 0), (1, 1)]);
        assert!((records[1].latency_ms - 37.0).abs() < 1e-6);
    }
}
