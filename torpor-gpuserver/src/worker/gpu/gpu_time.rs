//! Who has used the GPU for how long: while a client had its turn and work, shared evenly among those that had so at once.
//!
//! Noted where work begins and ends, not where commands are: a program that launches faster than its session falls asleep works
//! all the time.

use crate::worker::mailbox::Link;
use crate::worker::sync::lock;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use torpor_proto::control::worker::FunctionTime;

/// The time of one GPU.
#[derive(Debug)]
pub(crate) struct GpuTime(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Until when everything is shared out.
    until: Instant,
    using: Vec<Arc<Link>>,
    functions: BTreeMap<String, Duration>,
}

impl GpuTime {
    /// Nobody has used it yet.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State { until: Instant::now(), using: Vec::new(), functions: BTreeMap::new() }))
    }

    /// The client uses it from now on.
    pub(crate) fn begin(&self, link: &Arc<Link>) {
        self.begin_at(Instant::now(), link);
    }

    /// It does not any more.
    pub(crate) fn end(&self, client: u64) {
        self.end_at(Instant::now(), client);
    }

    /// Shares out what has been used until now, for whoever reads [`Link::usage`] next.
    pub(crate) fn settle(&self) {
        lock(&self.0).share_out(Instant::now());
    }

    /// How long each function has used it. What clients have is theirs ([`Link::usage`]).
    pub(crate) fn by_function(&self) -> Vec<FunctionTime> {
        let mut state = lock(&self.0);
        state.share_out(Instant::now());
        let microseconds = |time: &Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let times = state.functions.iter();
        times
            .map(|(function, time)| FunctionTime { function: function.clone(), gpu_us: microseconds(time) })
            .collect()
    }

    fn begin_at(&self, now: Instant, link: &Arc<Link>) {
        let mut state = lock(&self.0);
        state.share_out(now);
        if state.using.iter().all(|other| other.client != link.client) {
            state.using.push(link.clone());
        }
    }

    fn end_at(&self, now: Instant, client: u64) {
        let mut state = lock(&self.0);
        state.share_out(now);
        state.using.retain(|link| link.client != client);
    }
}

impl State {
    fn share_out(&mut self, now: Instant) {
        let time = now.saturating_duration_since(self.until);
        self.until = self.until.max(now);
        let Ok(users) = u32::try_from(self.using.len()) else { return };
        for link in &self.using {
            let part = time / users;
            let nanoseconds = u64::try_from(part.as_nanos()).unwrap_or(u64::MAX);
            link.usage.gpu_ns.fetch_add(nanoseconds, Ordering::Relaxed);
            match self.functions.get_mut(&link.function) {
                Some(sum) => *sum += part,
                None => _ = self.functions.insert(link.function.clone(), part),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use torpor_proto::layout::AddressRange;

    fn link(client: u64, function: &str) -> Arc<Link> {
        Arc::new(Link::new(client, function, AddressRange { address: client << 32, bytes: 1 << 32 }))
    }

    #[test]
    fn who_is_alone_has_all_of_it_and_those_at_once_have_equal_parts() {
        let time = GpuTime::new();
        let (start, [a, b, also_a]) = (Instant::now(), [link(1, "a"), link(2, "b"), link(3, "a")]);
        let at = |ms| start + Duration::from_millis(ms);
        time.begin_at(at(0), &a);
        time.begin_at(at(10), &b);
        time.begin_at(at(10), &b);
        time.end_at(at(30), 1);
        time.end_at(at(40), 2);
        time.begin_at(at(100), &also_a);
        time.end_at(at(105), 3);
        let of =
            |link: &Arc<Link>| Duration::from_nanos(link.usage.gpu_ns.load(Ordering::Relaxed)).as_millis();
        assert_eq!((of(&a), of(&b), of(&also_a)), (20, 20, 5));
        let functions: Vec<_> =
            time.by_function().into_iter().map(|time| (time.function, time.gpu_us)).collect();
        assert_eq!(
            functions,
            [("a".to_owned(), 25_000), ("b".to_owned(), 20_000)],
            "45 ms of it were used in all"
        );
    }

    #[test]
    fn who_never_used_it_is_not_told_of() {
        let time = GpuTime::new();
        time.end_at(Instant::now(), 7);
        assert_eq!(time.by_function(), []);
    }
}
