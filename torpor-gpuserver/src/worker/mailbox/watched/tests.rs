//! Kernels of a client with a limit of a second, at moments in milliseconds.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering};

const TIMEOUT: Duration = Duration::from_secs(1);

/// The one word of a GPU.
#[derive(Debug, Default)]
struct Word(AtomicU32);

impl Words for Word {
    fn at(&self, _: u32) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Client {
    watched: Watched,
    word: Arc<Word>,
    zero: Instant,
}

impl Client {
    fn new() -> Self {
        let (zero, word) = (Instant::now(), Arc::<Word>::default());
        let mut watched = Watched::new(zero);
        watched.see_in(word.clone());
        watched.limit(Some(TIMEOUT));
        Self { watched, word, zero }
    }

    fn at(&self, ms: u64) -> Instant {
        self.zero + Duration::from_millis(ms)
    }

    /// Launches the kernel whose end has this number, when there have been so many overstays.
    fn launch(&mut self, ms: u64, target: u32, overstays: u64) {
        let now = self.at(ms);
        self.watched.begin_launch(now, false);
        self.watched.end_launch(now, Some(Fence { word: 0, target }), overstays);
    }

    fn end_kernel(&self, target: u32) {
        self.word.0.store(target, Ordering::Relaxed);
    }

    /// The session looks, while the work of this overstay goes on, the last one of all.
    fn look(&mut self, ms: u64, overstay: Option<u64>) -> Option<bool> {
        let (now, all) = (self.at(ms), overstay.unwrap_or_default());
        let excuses = |first: u64| overstay.is_some_and(|number| number <= first);
        self.watched.look(now, false, all, excuses).map(|overdue| overdue.is_certain)
    }

    /// The warden looks.
    fn look_for_stuck(&mut self, ms: u64) -> Option<bool> {
        self.watched.look_for_stuck(self.at(ms), 0, |_| false).map(|overdue| overdue.is_certain)
    }
}

#[test]
fn a_kernel_is_overdue_after_its_timeout_and_one_that_ended_gives_the_next_its_own() {
    let mut client = Client::new();
    client.launch(0, 1, 0);
    client.launch(0, 2, 0);
    assert_eq!(client.look(900, None), None);
    client.end_kernel(1);
    assert_eq!(client.look(1000, None), None);
    assert_eq!(client.look(2000, None), None);
    assert_eq!(client.look(2001, None), Some(true));
    client.end_kernel(2);
    assert_eq!(client.look(5000, None), None);
}

#[test]
fn who_overstays_since_a_kernel_was_launched_does_not_excuse_it() {
    let mut client = Client::new();
    client.launch(0, 1, 4);
    for (ms, overstay) in (0..=1000).step_by(10).zip(5..) {
        assert_eq!(client.look(ms, Some(overstay)), None);
    }
    assert_eq!(client.look(1001, Some(500)), Some(true));
}

#[test]
fn who_has_overstayed_for_ever_excuses_a_kernel_for_one_timeout_and_it_is_not_sure_then_whose_fault_that_is()
{
    let mut client = Client::new();
    client.launch(0, 1, 4);
    for ms in (0..=2000).step_by(10) {
        assert_eq!(client.look(ms, Some(4)), None);
    }
    assert_eq!(client.look(2001, Some(4)), Some(false));
}

#[test]
fn the_time_counts_from_the_end_of_an_overstay() {
    let mut client = Client::new();
    client.launch(0, 1, 4);
    assert_eq!(client.look(500, Some(4)), None);
    assert_eq!(client.look(1500, None), None);
    assert_eq!(client.look(1501, None), Some(false));
}

#[test]
fn a_kernel_of_a_session_that_is_stuck_is_seen_from_outside() {
    let mut client = Client::new();
    client.launch(0, 1, 0);
    assert_eq!(client.look(600, None), None);
    // It may look for itself.
    assert_eq!(client.look_for_stuck(1600), None);
    assert_eq!(client.look_for_stuck(1601), Some(true));
    client.end_kernel(1);
    assert_eq!(client.look_for_stuck(1602), None);
}

#[test]
fn a_kernel_whose_memory_was_on_its_way_when_its_session_got_stuck_has_a_minute_more() {
    let mut client = Client::new();
    client.launch(0, 1, 0);
    assert_eq!(client.watched.look(client.at(10), true, 0, |_| false), None);
    assert_eq!(client.look_for_stuck(61_010), None);
    assert_eq!(client.look_for_stuck(61_011), Some(false));
}

#[test]
fn time_in_which_memory_is_on_its_way_does_not_count() {
    let mut client = Client::new();
    client.launch(0, 1, 0);
    assert_eq!(client.watched.look(client.at(5000), true, 0, |_| false), None);
    assert_eq!(client.look(6000, None), None);
    assert_eq!(client.look(6001, None), Some(true));
}

#[test]
fn a_launch_that_lasts_may_be_of_a_kernel_that_runs() {
    let mut client = Client::new();
    client.watched.begin_launch(client.at(0), false);
    assert_eq!(client.look_for_stuck(11_000), None, "a neighbour's kernel may hold it back");
    assert_eq!(client.look_for_stuck(11_001), Some(false));
    client.watched.end_launch(client.at(11_002), None, 0);
    assert_eq!(client.look_for_stuck(90_000), None);
}

#[test]
fn nothing_is_seen_of_a_session_that_has_given_its_words_back() {
    let mut client = Client::new();
    client.launch(0, 1, 0);
    client.watched.withdraw();
    assert_eq!(client.look_for_stuck(9000), None);
    assert_eq!(Arc::strong_count(&client.word), 1);
}
