//! What the program is told of its failed calls, as CUDA's error log (`cuLogs…`, CUDA 12.9): the last lines that were
//! written, and functions of the program that are called with each.
//!
//! It has what only this library can say: which function it refused.

use crate::core::CudaResult;
use std::collections::VecDeque;
use std::ffi::{CString, c_char, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use torpor_proto::error::CudaError;

/// As much as the driver keeps (cuda.h).
const MOST_BYTES: usize = 25600;

/// `CU_LOG_LEVEL_ERROR`
const ERROR: u32 = 0;

/// `CUlogsCallback`: with what was given with it, a level, a text, and how long that is.
pub(crate) type Listener = unsafe extern "C" fn(*mut c_void, u32, *mut c_char, usize);

#[derive(Default)]
struct Told {
    lines: VecDeque<String>,
    bytes: usize,
    /// How many there were in all. The iterators of programs are these numbers.
    count: u32,
    /// Each with its number.
    listeners: Vec<(usize, Listener, DataPointer)>,
    last_listener: usize,
}

/// What a program wants its function to be called with.
#[derive(Clone, Copy)]
struct DataPointer(*mut c_void);

// SAFETY: the pointer is the program's, which gives it to be passed to its function in whatever thread fails.
unsafe impl Send for DataPointer {}

static TOLD: Mutex<Option<Told>> = Mutex::new(None);

fn with<R>(body: impl FnOnce(&mut Told) -> R) -> R {
    let mut told: MutexGuard<'_, Option<Told>> = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    body(told.get_or_insert_default())
}

impl Told {
    fn add(&mut self, line: String) {
        self.bytes += line.len() + 1;
        self.lines.push_back(line);
        self.count = self.count.wrapping_add(1);
        while self.bytes > MOST_BYTES {
            let Some(gone) = self.lines.pop_front() else { break };
            self.bytes -= gone.len() + 1;
        }
    }

    /// The lines from a number on, and whether some of them are gone.
    fn since(&self, start: Option<u32>) -> (Vec<&str>, bool) {
        let wanted = start.map_or(self.lines.len(), |start| self.count.wrapping_sub(start) as usize);
        let kept = wanted.min(self.lines.len());
        let lines = self.lines.iter().skip(self.lines.len() - kept).map(String::as_str).collect();
        (lines, wanted > kept)
    }
}

/// Says that a function failed, and why.
pub(crate) fn tell(function: &str, why: &str) {
    // SAFETY: no arguments, and it cannot fail.
    let thread = unsafe { libc::gettid() };
    let line = format!("[{}][{thread}][CUDA][E][{function}] {why}", time_of_day());
    let listeners: Vec<_> = with(|told| {
        told.add(line.clone());
        told.listeners.clone()
    });
    let Ok(text) = CString::new(line) else { return };
    for (_, listener, DataPointer(data)) in listeners {
        let length = text.as_bytes().len();
        // SAFETY: the program gave it to be called with this (cuLogsRegisterCallback); no lock is held.
        unsafe { listener(data, ERROR, text.as_ptr().cast_mut(), length) };
    }
}

/// Says so if a function failed because it, or what it was asked for, is not offered.
#[cold]
pub(crate) fn tell_refusal(function: &str, error: CudaError) {
    if error == CudaError::NOT_SUPPORTED {
        tell(function, "is not supported by Torpor, or not with these arguments");
    }
}

/// Hours, minutes, seconds and milliseconds, of UTC.
fn time_of_day() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = now.as_secs();
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}", seconds % 60, now.subsec_millis())
}

/// `cuLogsRegisterCallback`: the listener's number, which is not 0.
pub(crate) fn add_listener(listener: Listener, data: *mut c_void) -> usize {
    with(|told| {
        told.last_listener += 1;
        told.listeners.push((told.last_listener, listener, DataPointer(data)));
        told.last_listener
    })
}

/// `cuLogsUnregisterCallback`.
///
/// # Errors
/// `INVALID_VALUE` if there is none of that number.
pub(crate) fn remove_listener(number: usize) -> CudaResult<()> {
    with(|told| {
        let before = told.listeners.len();
        told.listeners.retain(|listener| listener.0 != number);
        if told.listeners.len() < before { Ok(()) } else { Err(CudaError::INVALID_VALUE) }
    })
}

/// The number that the next line will have.
pub(crate) fn next() -> u32 {
    with(|told| told.count)
}

/// The lines from a number on that fit into so many bytes, each with its end, the newest last; and the number of the next.
/// Where some are missing, the first line says so.
///
/// # Errors
/// `INVALID_VALUE` if there are lines, and no room for one.
pub(crate) fn text_since(start: Option<u32>, room: usize) -> CudaResult<(String, u32)> {
    const MISSING: &str = "[older messages are not here]\n";
    with(|told| {
        let (lines, are_missing) = told.since(start);
        let bytes = |lines: &[&str]| lines.iter().map(|line| line.len() + 1).sum::<usize>();
        let mut from = 0;
        let left_out = |from: usize| if are_missing || from > 0 { MISSING.len() } else { 0 };
        while from < lines.len() && bytes(&lines[from..]) + left_out(from) > room {
            from += 1;
        }
        if from == lines.len() && from > 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        let head = if left_out(from) > 0 { MISSING } else { "" };
        let text = lines[from..].iter().fold(head.to_owned(), |text, line| text + line + "\n");
        Ok((text, told.count))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn told(lines: u32) -> Told {
        let mut told = Told::default();
        (0..lines).for_each(|number| told.add(format!("line {number:04}")));
        told
    }

    #[test]
    fn the_oldest_lines_are_gone_when_there_are_too_many() {
        let told = told(5000);
        let (lines, are_missing) = told.since(None);
        assert_eq!((lines.len(), are_missing), (MOST_BYTES / 10, false));
        assert_eq!(lines.last(), Some(&"line 4999"));
        let (lines, are_missing) = told.since(Some(10));
        assert_eq!((lines.len(), are_missing), (MOST_BYTES / 10, true));
        assert_eq!(told.since(Some(4998)).0, ["line 4998", "line 4999"]);
        assert!(told.since(Some(5000)).0.is_empty());
    }

    #[test]
    fn a_refusal_is_told_to_whoever_listens_and_to_whoever_asks() {
        unsafe extern "C" fn count(data: *mut c_void, level: u32, text: *mut c_char, length: usize) {
            // SAFETY: the test gives a number to be counted up, and the text is as long as it says.
            let (heard, end) = unsafe { (&*data.cast::<AtomicU32>(), text.add(length).read()) };
            assert_eq!((level, end), (ERROR, 0));
            heard.fetch_add(1, Ordering::Relaxed);
        }
        let heard = AtomicU32::new(0);
        let (start, listener) = (next(), add_listener(count, (&raw const heard).cast_mut().cast()));
        tell("cuExample", "is not supported");
        remove_listener(listener).unwrap();
        assert_eq!(remove_listener(listener), Err(CudaError::INVALID_VALUE));
        let (text, after) = text_since(Some(start), 1 << 20).unwrap();
        assert!(text.contains("[CUDA][E][cuExample] is not supported\n") && after > start, "{text}");
        assert!(heard.into_inner() >= 1);
        assert_eq!(text_since(Some(start), 10), Err(CudaError::INVALID_VALUE));
        assert_eq!(text_since(Some(after), 0).map(|(text, _)| text), Ok(String::new()));
    }
}
