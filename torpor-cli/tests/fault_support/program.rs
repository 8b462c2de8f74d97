//! The client's program: an ordinary program of the CUDA driver API, which does what its standard input says. It knows
//! nothing of Torpor and nothing of the faults.

use super::request::{Answer, Request, Value};
use crate::driver_api::{Argument, Arguments, Driver, DriverError, LaunchShape};
use std::io::{self, BufRead};

/// Set in the program's process.
pub const IS_CLIENT: &str = "TORPOR_TEST_FAULTS_CLIENT";

/// Begins every line that is for the test; the test framework prints others.
pub const ANSWER: &str = "answer: ";

const BLOCK_THREADS: u32 = 128;
const VECTOR_ADD: &str = include_str!("../../../evaluation/kernels/vector_add.ptx");
const SAXPY: &str = include_str!("../../../evaluation/kernels/saxpy.ptx");

struct Program {
    driver: Driver,
    vector_add: usize,
    saxpy: usize,
}

/// Call from the test named `client_program`: serves if this process is one, else does nothing.
pub fn serve_if_asked() {
    if std::env::var_os(IS_CLIENT).is_none() {
        return;
    }
    let program = Program::load().unwrap();
    // The process whose memory is mapped, and which may have to be killed.
    say(&Ok(Value::Handle(std::process::id().into())));
    for line in io::stdin().lock().lines() {
        let request = serde_json::from_str(&line.unwrap()).unwrap();
        say(&program.answer(request).map_err(|error| match error {
            DriverError::Call { code, .. } => code,
            DriverError::Library(reason) => panic!("{reason}"),
        }));
    }
}

fn say(answer: &Answer) {
    println!("\n{ANSWER}{}", serde_json::to_string(answer).unwrap());
}

impl Program {
    fn load() -> Result<Self, DriverError> {
        let driver = Driver::open("libcuda.so.1".as_ref())?;
        driver.use_first_device()?;
        let kernel = |ptx, name| driver.function(driver.load_module(ptx)?, name);
        let (vector_add, saxpy) = (kernel(VECTOR_ADD, "vector_add")?, kernel(SAXPY, "saxpy")?);
        Ok(Self { driver, vector_add, saxpy })
    }

    fn answer(&self, request: Request) -> Result<Value, DriverError> {
        let done = |()| Value::Nothing;
        let driver = &self.driver;
        match request {
            Request::Allocate(bytes) => driver.allocate(bytes).map(Value::Handle),
            Request::Free(address) => driver.free(address).map(done),
            Request::Write(address, numbers) => {
                // SAFETY: the numbers stay until the stream is done, or will never be.
                unsafe { driver.copy_in(address, &numbers, 0) }?;
                driver.synchronize(0).map(done)
            }
            Request::Read(address, count) => {
                let mut numbers = vec![0.0; count];
                // SAFETY: as above, and nobody touches them meanwhile.
                unsafe { driver.copy_out(&mut numbers, address, 0) }?;
                driver.synchronize(0).map(|()| Value::Numbers(numbers))
            }
            Request::Overcommit(count) => {
                let numbers: Vec<f32> = (0..count).map(|index| (index % 100_003) as f32).collect();
                let mut back = vec![0.0; count];
                let address = driver.allocate(size_of_val(&numbers[..]))?;
                // SAFETY: both stay until the stream is done, or will never be, and nobody touches them meanwhile.
                unsafe {
                    driver.copy_in(address, &numbers, 0)?;
                    driver.copy_out(&mut back, address, 0)?;
                }
                driver.synchronize(0)?;
                assert!(numbers == back, "the memory is not as it was written");
                Ok(Value::Nothing)
            }
            Request::CreateStream => driver.create_stream().map(|stream| Value::Handle(stream as u64)),
            Request::DestroyStream(stream) => driver.destroy_stream(stream as usize).map(done),
            Request::VectorAdd { a, b, c, count, stream } => {
                let addresses = [a, b, c].map(Argument::Address);
                let arguments = [&addresses[..], &[Argument::Int(count)]].concat();
                self.launch(self.vector_add, count, stream, &arguments).map(done)
            }
            Request::Saxpy { alpha, x, y, count, stream } => {
                let scalars = [Argument::Int(count), Argument::Float(alpha)];
                let arguments = [scalars, [x, y].map(Argument::Address)].concat();
                self.launch(self.saxpy, count, stream, &arguments).map(done)
            }
            Request::Synchronize(stream) => driver.synchronize(stream as usize).map(done),
        }
    }

    fn launch(&self, kernel: usize, count: i32, stream: u64, list: &[Argument]) -> Result<(), DriverError> {
        let blocks = count.unsigned_abs().div_ceil(BLOCK_THREADS);
        let shape = LaunchShape { grid: [blocks, 1, 1], block: [BLOCK_THREADS, 1, 1], shared_bytes: 0 };
        // SAFETY: the callers pass what the kernels' sources declare.
        unsafe { self.driver.launch(kernel, shape, stream as usize, &mut Arguments::new(list)) }
    }
}
