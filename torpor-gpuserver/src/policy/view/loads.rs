//! Loads: how much of the time each client has work, and for how long it has been so.

use std::collections::BTreeMap;
use std::time::Duration;

/// What was measured so long ago says nothing of now.
const OUTDATED: Duration = Duration::from_millis(1500);

/// A client with at least this load is busy.
const BUSY: f64 = 0.3;

/// Of all clients that workers tell of.
#[derive(Clone, Debug, Default)]
pub struct Loads {
    /// When and what was heard last: how long each client had worked.
    before: Option<(Duration, BTreeMap<u64, Duration>)>,
    loads: BTreeMap<u64, f64>,
    busy_since: BTreeMap<u64, Duration>,
}

impl Loads {
    /// Over how long loads are measured, at least.
    pub const WINDOW: Duration = Duration::from_millis(100);

    /// A client's; nothing is known of one that has just come.
    #[must_use]
    pub fn of(&self, client: u64) -> Option<f64> {
        self.loads.get(&client).copied()
    }

    /// Since when a client has been busy, if it is.
    #[must_use]
    pub fn busy_since(&self, client: u64) -> Option<Duration> {
        self.busy_since.get(&client).copied()
    }

    /// Whether what is said of some busy client was not so that long ago.
    #[must_use]
    pub fn has_changed_within(&self, now: Duration, time: Duration) -> bool {
        self.busy_since.values().any(|&since| now.saturating_sub(since) < time)
    }

    /// Hears at once how long clients have worked in all.
    pub(super) fn hear(&mut self, at: Duration, worked: impl Iterator<Item = (u64, Duration)>) {
        let passed = self.before.as_ref().map(|(before, _)| at.saturating_sub(*before));
        if passed.is_some_and(|passed| passed < Self::WINDOW) {
            return;
        }
        let worked: BTreeMap<_, _> = worked.collect();
        let before = self.before.replace((at, worked));
        let (Some((began, before)), Some((_, worked))) = (before, &self.before) else { return };
        self.loads.clear();
        if at.saturating_sub(began) > OUTDATED {
            self.busy_since.clear();
            return;
        }
        let passed = at.saturating_sub(began).as_secs_f64();
        let load = |(client, worked): (&u64, &Duration)| {
            let begin = before.get(client)?;
            Some((*client, (worked.saturating_sub(*begin).as_secs_f64() / passed).min(1.0)))
        };
        self.loads = worked.iter().filter_map(load).collect();
        let loads = &self.loads;
        let is_busy = |client: &u64| loads.get(client).is_some_and(|&load| load >= BUSY);
        self.busy_since.retain(|client, _| is_busy(client));
        for client in loads.keys().filter(|client| is_busy(client)) {
            self.busy_since.entry(*client).or_insert(began);
        }
    }

    pub(super) fn forget(&mut self, client: u64) {
        self.loads.remove(&client);
        self.busy_since.remove(&client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn hear(loads: &mut Loads, at_ms: u64, worked_ms: &[(u64, u64)]) {
        loads.hear(ms(at_ms), worked_ms.iter().map(|&(client, worked)| (client, ms(worked))));
    }

    #[test]
    fn a_load_is_the_part_of_the_time_with_work() {
        let mut loads = Loads::default();
        hear(&mut loads, 1000, &[(1, 500), (2, 7), (3, 9000), (4, 0)]);
        hear(&mut loads, 1100, &[(1, 550), (2, 7), (3, 0), (4, 200), (5, 90)]);
        let load = |client| loads.of(client).map(|load| (load * 100.0).round());
        assert_eq!([1, 2, 4].map(load), [Some(50.0), Some(0.0), Some(100.0)]);
        assert_eq!(load(3), Some(0.0), "it was moved, and counts anew");
        assert_eq!(load(5), None, "nothing is known of one that has just come");
    }

    #[test]
    fn who_is_busy_has_been_so_since_it_was_first_seen_to_be() {
        let mut loads = Loads::default();
        hear(&mut loads, 1000, &[(1, 0), (2, 0)]);
        hear(&mut loads, 1050, &[(1, 50), (2, 0)]);
        assert_eq!(loads.busy_since(1), None, "too short a time says too little");
        hear(&mut loads, 1100, &[(1, 100), (2, 10)]);
        hear(&mut loads, 1200, &[(1, 150), (2, 20)]);
        assert_eq!((loads.busy_since(1), loads.busy_since(2)), (Some(ms(1000)), None));
        assert!(loads.has_changed_within(ms(1200), ms(500)) && !loads.has_changed_within(ms(1600), ms(500)));
        hear(&mut loads, 1300, &[(1, 150), (2, 20)]);
        assert_eq!(loads.busy_since(1), None);
        hear(&mut loads, 1400, &[(1, 250), (2, 120)]);
        hear(&mut loads, 9000, &[(1, 7850), (2, 7000)]);
        assert_eq!(loads.busy_since(1), None, "nobody looked meanwhile");
    }
}
