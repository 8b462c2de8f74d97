//! What CUDA promises of the order of a program's operations, and whether it was kept.
//!
//! A call that returned before another one began came first; calls that overlap may have come in either order, so nothing is
//! promised between them. What a kernel or a copy may rely on is what is complete before it: earlier work of its stream, of
//! the streams that its stream waits for, of the records that it was made to wait for, and all that any thread was
//! told to be complete. Records and waits are no work that another stream waits for, and a wait does not wait for another stream:
//! for an event that is reached, it does nothing at all (cuStreamWaitEvent). Source: CUDA programming guide, "Asynchronous Concurrent Execution", and "Stream synchronization
//! behavior" of the driver API.

use super::program::Step;

/// Operations: one bit for each.
pub type Operations = u64;

/// A stream, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamKey {
    /// No other stream has or had it.
    pub identity: u64,
    pub kind: StreamKind,
}

/// How a stream waits for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    Legacy,
    /// It and the legacy stream wait for each other's earlier work.
    Blocking,
    Free,
}

impl StreamKey {
    /// Whether work in it waits for earlier work of the other.
    fn is_behind(self, other: Self) -> bool {
        self == other
            || matches!(
                (self.kind, other.kind),
                (StreamKind::Legacy, StreamKind::Blocking) | (StreamKind::Blocking, StreamKind::Legacy)
            )
    }

    /// Whether synchronising with it waits for earlier work of the other.
    fn includes(self, other: Self) -> bool {
        self == other || (self.kind == StreamKind::Legacy && other.kind == StreamKind::Blocking)
    }
}

/// A call that a thread made, and what it saw.
#[derive(Clone, Debug)]
pub struct Call {
    pub thread: usize,
    pub step: Step,
    /// The stream that it names.
    pub stream: Option<StreamKey>,
    /// The event that it names: no other one has or had this number.
    pub event: Option<u64>,
    /// When it began and ended, on a clock of all threads.
    pub begun: u64,
    /// See `begun`.
    pub ended: u64,
    /// A query said yes.
    pub is_done: bool,
    /// Kernels that were done right behind the call, as page-locked memory told.
    pub told: Operations,
    /// What a copy back brought: operations that were done.
    pub copied: Operations,
}

/// What the device said in the end.
pub struct Found {
    /// Operations that were done when each began.
    pub seen: Vec<Operations>,
    /// What each found in its block.
    pub kept: Vec<u64>,
    /// Operations that are done now.
    pub done: Operations,
}

/// What is promised of a call.
#[derive(Clone, Copy, Debug, Default)]
struct Promised {
    /// Complete before what it puts into a stream starts.
    before: Operations,
    /// Complete when it returns.
    complete: Operations,
}

/// Every promise that was broken.
pub fn broken(calls: &mut [Call], found: &Found, operations: usize) -> Vec<String> {
    calls.sort_by_key(|call| call.begun);
    let kernels: Operations =
        calls.iter().filter(|call| call.step.is_kernel()).map(own).fold(0, |all, one| all | one);
    let mut promised: Vec<Promised> = Vec::with_capacity(calls.len());
    let mut broken = Vec::new();
    for call in calls.iter() {
        let promise = promise(calls, &promised, call);
        promised.push(promise);
        let mut check = |what: &str, missing: Operations| {
            if missing != 0 {
                let missing: Vec<_> = (0..64).filter(|operation| missing >> operation & 1 == 1).collect();
                broken.push(format!("thread {} {:?}: {what} {missing:?}", call.thread, call.step));
            }
        };
        check("returned before the kernels", promise.complete & kernels & !call.told);
        if let Step::CopyBack { .. } = call.step {
            check("copied before", promise.before & !call.copied);
        }
        if let (Some(operation), true) = (call.step.operation(), call.step.is_kernel()) {
            check("started before", promise.before & !found.seen[operation]);
        }
        if let Step::Use { operation, .. } = call.step
            && found.kept[operation] != operation as u64
        {
            check("shared its block with", 1 << (found.kept[operation] % 64));
        }
    }
    let all = if operations == 64 { u64::MAX } else { (1 << operations) - 1 };
    if all & !found.done != 0 {
        broken.push(format!("never done: {:#x}", all & !found.done));
    }
    broken
}

/// The operation that a call starts, if any.
fn own(call: &Call) -> Operations {
    call.step.operation().map_or(0, |operation| 1 << operation)
}

/// What is promised of a call, by what is of those that began before.
fn promise(calls: &[Call], promised: &[Promised], call: &Call) -> Promised {
    let earlier = || calls.iter().zip(promised).filter(|(other, _)| other.ended < call.begun);
    let known = earlier().fold(0, |known, (_, promise)| known | promise.complete);
    // All of the streams that fit, with what that waited for.
    let of_streams = |fits: &dyn Fn(StreamKey) -> bool| {
        let matters =
            |other: &Call| other.step.is_work() || (other.step.is_in_stream() && other.stream == call.stream);
        let fitting = earlier().filter(|(other, _)| matters(other) && other.stream.is_some_and(fits));
        fitting.fold(known, |all, (other, promise)| all | promise.before | own(other))
    };
    // What is before the event's last record, whichever that was.
    let of_record = || {
        let is_record = |other: &Call| matches!(other.step, Step::Record { .. }) && other.event == call.event;
        let overlaps = |other: &Call| other.begun < call.ended && other.ended > call.begun;
        if calls.iter().any(|other| is_record(other) && overlaps(other)) {
            return known;
        }
        let records = || earlier().filter(|(other, _)| is_record(other));
        let may_be_last = |record: &Call| !records().any(|(other, _)| other.begun > record.ended);
        let last = records().filter(|(record, _)| may_be_last(record)).map(|(_, promise)| promise.before);
        last.reduce(|all, before| all & before).unwrap_or(0) | known
    };
    let in_stream = |stream: Option<StreamKey>| {
        stream.map_or(known, |stream| of_streams(&|other| stream.is_behind(other)))
    };
    let synchronized = |stream: Option<StreamKey>| {
        stream.map_or(known, |stream| of_streams(&|other| stream.includes(other)))
    };
    let (mut before, mut complete) = (known, known);
    match call.step {
        Step::Launch { .. } | Step::Upload { .. } | Step::Use { .. } | Step::Record { .. } => {
            before = in_stream(call.stream);
        }
        Step::Wait { .. } => before = of_streams(&|other| call.stream == Some(other)) | of_record(),
        Step::CopyBack { .. } => {
            before = in_stream(call.stream);
            complete = before;
        }
        Step::SynchronizeStream { .. } => complete = synchronized(call.stream),
        Step::QueryStream { .. } if call.is_done => complete = synchronized(call.stream),
        Step::SynchronizeEvent { .. } => complete = of_record(),
        Step::QueryEvent { .. } if call.is_done => complete = of_record(),
        Step::SynchronizeAll => complete = of_streams(&|_| true),
        _ => {}
    }
    Promised { before, complete }
}
