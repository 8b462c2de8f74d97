//! Loads over links to the host that GPUs share: each goes on as fast as the others leave it.

use std::time::Duration;
use torpor_gpuserver::policy::topology::Topology;

/// All loads that are under way, one for each GPU at most.
#[derive(Debug)]
pub struct Links<'a> {
    topology: &'a Topology,
    at: Duration,
    left_bytes: Vec<Option<f64>>,
}

impl<'a> Links<'a> {
    /// Nothing is under way.
    pub fn new(topology: &'a Topology) -> Self {
        Self { topology, at: Duration::ZERO, left_bytes: vec![None; topology.gpus.len()] }
    }

    /// So many bytes are to come to a GPU, from now on.
    pub fn begin(&mut self, now: Duration, gpu: usize, bytes: u64) {
        self.advance(now);
        self.left_bytes[gpu] = Some(bytes as f64);
    }

    /// The loads that have ended by now.
    pub fn ended(&mut self, now: Duration) -> Vec<usize> {
        self.advance(now);
        let is_over = |gpu: &usize| self.left_bytes[*gpu].is_some_and(|left| left < 1.0);
        let over: Vec<usize> = (0..self.left_bytes.len()).filter(is_over).collect();
        over.iter().for_each(|&gpu| self.left_bytes[gpu] = None);
        over
    }

    /// When the next load ends, if none begins before.
    pub fn next_end(&self) -> Option<Duration> {
        let end = |gpu: usize| {
            // One that is over, and of which nobody has heard yet, has less than nothing left.
            let seconds = self.left_bytes[gpu]?.max(0.0) / self.rate(gpu);
            // Not earlier than it is over.
            Some(self.at + Duration::from_secs_f64(seconds) + Duration::from_nanos(1))
        };
        (0..self.left_bytes.len()).filter_map(end).min()
    }

    fn rate(&self, gpu: usize) -> f64 {
        let over_its_link =
            |&other: &usize| self.left_bytes[other].is_some() && self.topology.share_a_link(gpu, other);
        self.topology.bytes_per_second(gpu, (0..self.left_bytes.len()).filter(over_its_link).count())
    }

    fn advance(&mut self, now: Duration) {
        let seconds = now.saturating_sub(self.at).as_secs_f64();
        let rates: Vec<f64> = (0..self.left_bytes.len()).map(|gpu| self.rate(gpu)).collect();
        for (left, rate) in self.left_bytes.iter_mut().zip(rates) {
            *left = left.map(|left| left - seconds * rate);
        }
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use torpor_gpuserver::policy::topology::Path;

    #[test]
    fn two_over_one_link_take_longer_than_one_and_a_third_elsewhere_does_not_mind() {
        let path = |switch| Path {
            host_gbps: Some(10.0),
            switch_gbps: Some(12.0),
            switch: Some(switch),
            ..Path::default()
        };
        let topology = Topology { gpus: vec![path(0), path(0), path(1)], ..Topology::default() };
        let mut links = Links::new(&topology);
        let ms = Duration::from_millis;
        links.begin(ms(0), 0, 100_000_000);
        links.begin(ms(0), 2, 100_000_000);
        // Half of the first is there when the second begins, and both then have 6 GB/s.
        links.begin(ms(5), 1, 60_000_000);
        let mut ends = Vec::new();
        while let Some(at) = links.next_end() {
            ends.extend(links.ended(at).into_iter().map(|gpu| (gpu, at.as_micros())));
        }
        // The second has 10 MB left when the first is done, and is alone again.
        assert_eq!(ends, [(2, 10_000), (0, 13_333), (1, 14_333)]);
    }
    #[test]
    fn a_load_may_begin_when_another_is_over_and_has_not_been_heard_of() {
        let path = Path { host_gbps: Some(10.0), ..Path::default() };
        let topology = Topology { gpus: vec![path.clone(), path], ..Topology::default() };
        let mut links = Links::new(&topology);
        let ms = Duration::from_millis;
        links.begin(ms(0), 0, 10_000_000);
        links.begin(ms(2), 1, 10_000_000);
        let end = links.next_end().unwrap();
        assert!(end < ms(3) && links.ended(end) == [0]);
    }
}
