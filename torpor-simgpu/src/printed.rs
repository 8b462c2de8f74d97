//! What kernels print: kept on the device until a call that synchronises, then written to the process's standard output.

use std::io::Write;
use std::sync::Mutex;

use crate::lock;
use crate::machine::Machine;
use crate::ptx::System;

/// Bytes that are kept if nobody synchronises, the default of `CU_LIMIT_PRINTF_FIFO_SIZE`; later text takes the place of what
/// was first.
const MOST_BYTES: usize = 1 << 20;

/// Text that is waiting.
#[derive(Debug, Default)]
pub struct Printed {
    text: Mutex<Vec<u8>>,
}

impl Printed {
    /// Writes what is waiting to standard output.
    pub fn flush(&self) {
        let text = std::mem::take(&mut *lock(&self.text));
        if !text.is_empty() {
            let mut output = std::io::stdout().lock();
            // Nobody can be told if the output is closed.
            let _ = output.write_all(&text).and_then(|()| output.flush());
        }
    }
}

impl System for Machine {
    fn print(&self, text: &[u8]) {
        let mut waiting = lock(&self.printed.text);
        waiting.extend_from_slice(text);
        let surplus = waiting.len().saturating_sub(MOST_BYTES);
        waiting.drain(..surplus);
    }

    fn set_condition(&self, condition: u64, value: u32) {
        match self.conditions.find(condition) {
            Ok(condition) => condition.set(value),
            Err(_) => self.log.line(&format!("a kernel sets condition {condition:#x}, which there is not")),
        }
    }
}
