//! A client as a test sees it: a process under `torpor run`, and a computation whose every step is checked.

use super::program::{ANSWER, IS_CLIENT};
use super::request::{Answer, Request, Value};
use crate::server_support::server::{PATIENCE, eventually};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Numbers in each of the computation's arrays.
pub const COUNT: i32 = 1000;
/// Bytes of such an array.
pub const ARRAY_BYTES: usize = 4 * COUNT as usize;

/// A running client.
pub struct Client {
    child: Child,
    input: ChildStdin,
    answers: Receiver<Answer>,
    /// Its process.
    pub process: Pid,
    computation: Option<Computation>,
}

/// `y = 2 x + y`, again and again: a result depends on everything that was ever done to its memory.
struct Computation {
    x: u64,
    y: u64,
    expected: Vec<f32>,
}

impl Client {
    /// Starts the program by a `torpor run` that lacks nothing but the command.
    pub fn start(mut run: Command) -> Self {
        run.arg("--").arg(std::env::current_exe().unwrap()).args([
            "--exact",
            "client_program",
            "--nocapture",
        ]);
        run.env(IS_CLIENT, "1").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = run.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let Some(answer) = line.strip_prefix(ANSWER) else { continue };
                // Nobody waits for an answer that came too late.
                let _ = sender.send(serde_json::from_str(answer).unwrap());
            }
        });
        let Ok(Ok(Value::Handle(process))) = answers.recv_timeout(PATIENCE) else {
            panic!("the client does not start")
        };
        let process = Pid::from_raw(process.try_into().unwrap()).unwrap();
        Self { child, input, answers, process, computation: None }
    }

    /// Asks, and does not wait for the answer.
    pub fn tell(&mut self, request: &Request) {
        writeln!(self.input, "{}", serde_json::to_string(request).unwrap()).unwrap();
    }

    /// The next answer, if it comes in time.
    pub fn answer_within(&mut self, patience: Duration) -> Option<Answer> {
        self.answers.recv_timeout(patience).ok()
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, request: &Request) -> Answer {
        self.tell(request);
        self.answer_within(PATIENCE).unwrap_or_else(|| panic!("no answer to {request:?}"))
    }

    /// Allocates device memory.
    pub fn allocate(&mut self, bytes: usize) -> Result<u64, i32> {
        self.ask(&Request::Allocate(bytes)).map(handle)
    }

    /// Creates a stream.
    pub fn create_stream(&mut self) -> Result<u64, i32> {
        self.ask(&Request::CreateStream).map(handle)
    }

    /// Waits for the default stream.
    pub fn synchronize(&mut self) -> Answer {
        self.ask(&Request::Synchronize(0))
    }

    /// Numbers from device memory.
    pub fn read(&mut self, address: u64, count: usize) -> Result<Vec<f32>, i32> {
        self.ask(&Request::Read(address, count)).map(|value| match value {
            Value::Numbers(numbers) => numbers,
            other => panic!("{other:?} is no contents"),
        })
    }

    /// Does a step of the computation, and panics if the result is wrong. The error is of the call that failed.
    pub fn compute(&mut self) -> Result<(), i32> {
        if self.computation.is_none() {
            let x: Vec<f32> = (0..COUNT).map(|index| (index % 17) as f32).collect();
            let [at_x, at_y] = [self.allocate(ARRAY_BYTES)?, self.allocate(ARRAY_BYTES)?];
            self.ask(&Request::Write(at_x, x.clone()))?;
            self.ask(&Request::Write(at_y, x.clone()))?;
            self.computation = Some(Computation { x: at_x, y: at_y, expected: x });
        }
        let computation = self.computation.as_mut().unwrap();
        let (x, y) = (computation.x, computation.y);
        for (index, expected) in computation.expected.iter_mut().enumerate() {
            *expected += 2.0 * (index % 17) as f32;
        }
        self.ask(&Request::Saxpy { alpha: 2.0, x, y, count: COUNT, stream: 0 })?;
        let computed = self.read(y, COUNT as usize)?;
        assert_eq!(computed, self.computation.as_ref().unwrap().expected, "a wrong result");
        Ok(())
    }

    /// Computes until that fails, and gives the code.
    pub fn compute_until_it_fails(&mut self) -> i32 {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < PATIENCE, "it does not fail");
            if let Err(code) = self.compute() {
                return code;
            }
        }
    }

    /// Panics unless every kind of call gives this code: the error is sticky.
    pub fn assert_stuck_with(&mut self, code: i32) {
        assert_eq!(self.synchronize(), Err(code), "waiting");
        assert_eq!(self.allocate(4 << 20), Err(code), "allocating");
        assert_eq!(self.compute(), Err(code), "computing");
        assert_eq!(self.synchronize(), Err(code), "waiting again");
    }

    /// Ends the process at once.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = kill_process(self.process, Signal::KILL);
        eventually("the client ends", || test_kill_process(self.process).is_err());
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = kill_process(self.process, Signal::KILL);
        // `torpor run` ends with its command.
        let _ = self.child.wait();
    }
}

fn handle(value: Value) -> u64 {
    match value {
        Value::Handle(handle) => handle,
        other => panic!("{other:?} is no handle"),
    }
}
