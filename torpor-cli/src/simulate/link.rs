//! Loads over links to the host that GPUs share: each goes on as fast as the others leave it. What comes from another GPU shares nothing.

use std::time::Duration;
use torpor_gpuserver::policy::topology::Topology;

/// All loads that are under way, one for each GPU at most.
#[derive(Debug)]
pub struct Links<'a> {
    topology: &'a Topology,
    at: Duration,
    loads: Vec<Option<Load>>,
}

#[derive(Clone, Copy, Debug)]
struct Load {
    left_bytes: f64,
    source: Source,
}

/// Where memory comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// The host.
    Host,
    /// Another GPU, at so many bytes a second.
    Peer(f64),
}

impl<'a> Links<'a> {
    /// Nothing is under way.
    pub fn new(topology: &'a Topology) -> Self {
        Self { topology, at: Duration::ZERO, loads: vec![None; topology.gpus.len()] }
    }

    /// So many bytes are to come to a GPU, from now on.
    pub fn begin(&mut self, now: Duration, gpu: usize, bytes: u64, source: Source) {
        self.advance(now);
        self.loads[gpu] = Some(Load { left_bytes: bytes as f64, source });
    }

    /// What has not come to a GPU yet comes from the host.
    pub fn go_on_from_host(&mut self, now: Duration, gpu: usize) {
        self.advance(now);
        if let Some(load) = &mut self.loads[gpu] {
            load.source = Source::Host;
        }
    }

    /// The loads that have ended by now.
    pub fn ended(&mut self, now: Duration) -> Vec<usize> {
        self.advance(now);
        let is_over = |gpu: &usize| self.loads[*gpu].is_some_and(|load| load.left_bytes < 1.0);
        let over: Vec<usize> = (0..self.loads.len()).filter(is_over).collect();
        over.iter().for_each(|&gpu| self.loads[gpu] = None);
        over
    }

    /// When the next load ends, if none begins before.
    pub fn next_end(&self) -> Option<Duration> {
        let end = |gpu: usize| {
            // One that is over, and of which nobody has heard yet, has less than nothing left.
            let load = self.loads[gpu]?;
            let seconds = load.left_bytes.max(0.0) / self.rate(gpu, load);
            // Not earlier than it is over.
            Some(self.at + Duration::from_secs_f64(seconds) + Duration::from_nanos(1))
        };
        (0..self.loads.len()).filter_map(end).min()
    }

    fn rate(&self, gpu: usize, load: Load) -> f64 {
        if let Source::Peer(bytes_per_second) = load.source {
            return bytes_per_second;
        }
        let is_from_host = |other: usize| self.loads[other].is_some_and(|load| load.source == Source::Host);
        let over_its_link = |&other: &usize| is_from_host(other) && self.topology.share_a_link(gpu, other);
        self.topology.bytes_per_second(gpu, (0..self.loads.len()).filter(over_its_link).count())
    }

    fn advance(&mut self, now: Duration) {
        let seconds = now.saturating_sub(self.at).as_secs_f64();
        let came =
            |(gpu, load): (usize, &Option<Load>)| load.map_or(0.0, |load| seconds * self.rate(gpu, load));
        let came: Vec<f64> = self.loads.iter().enumerate().map(came).collect();
        for (load, came) in self.loads.iter_mut().zip(came) {
            if let Some(load) = load {
                load.left_bytes -= came;
            }
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
        links.begin(ms(0), 0, 100_000_000, Source::Host);
        links.begin(ms(0), 2, 100_000_000, Source::Host);
        // Half of the first is there when the second begins, and both then have 6 GB/s.
        links.begin(ms(5), 1, 60_000_000, Source::Host);
        let mut ends = Vec::new();
        while let Some(at) = links.next_end() {
            ends.extend(links.ended(at).into_iter().map(|gpu| (gpu, at.as_micros())));
        }
        // The second has 10 MB left when the first is done, and is alone again.
        assert_eq!(ends, [(2, 10_000), (0, 13_333), (1, 14_333)]);
    }

    #[test]
    fn what_comes_from_another_gpu_takes_nothing_of_a_link_until_it_comes_from_the_host() {
        let path =
            Path { host_gbps: Some(10.0), switch_gbps: Some(10.0), switch: Some(0), ..Path::default() };
        let topology = Topology { gpus: vec![path.clone(), path], ..Topology::default() };
        let mut links = Links::new(&topology);
        let ms = Duration::from_millis;
        links.begin(ms(0), 0, 100_000_000, Source::Host);
        links.begin(ms(0), 1, 100_000_000, Source::Peer(25e9));
        links.go_on_from_host(ms(2), 1);
        let mut ends = Vec::new();
        while let Some(at) = links.next_end() {
            ends.extend(links.ended(at).into_iter().map(|gpu| (gpu, at.as_micros())));
        }
        // From 2 ms on both have half of the link: one has 80 MB left, the other 50.
        assert_eq!(ends, [(1, 12_000), (0, 15_000)]);
    }

    #[test]
    fn a_load_may_begin_when_another_is_over_and_has_not_been_heard_of() {
        let path = Path { host_gbps: Some(10.0), ..Path::default() };
        let topology = Topology { gpus: vec![path.clone(), path], ..Topology::default() };
        let mut links = Links::new(&topology);
        let ms = Duration::from_millis;
        links.begin(ms(0), 0, 10_000_000, Source::Host);
        links.begin(ms(2), 1, 10_000_000, Source::Host);
        let end = links.next_end().unwrap();
        assert!(end < ms(3) && links.ended(end) == [0]);
    }
}
