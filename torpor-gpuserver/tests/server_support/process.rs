//! What tests do to processes, and see of them.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;

/// Sends a signal.
pub fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// Whether it runs still.
pub fn is_alive(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}/exe")).exists()
}

/// The numbers of a process's children.
pub fn children(pid: u32) -> Vec<u32> {
    let said = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    said.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

/// Those of them that run this subcommand of the server's program.
pub fn children_that_are(pid: u32, subcommand: &str) -> Vec<u32> {
    let is_one = |&child: &u32| {
        fs::read(format!("/proc/{child}/cmdline"))
            .is_ok_and(|line| line.split(|&byte| byte == 0).nth(1) == Some(subcommand.as_bytes()))
    };
    children(pid).into_iter().filter(is_one).collect()
}
