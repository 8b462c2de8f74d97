//! The node as one client sees it that waits for its turn: what policies choose from.

use crate::policy::event::Phase;
use crate::policy::placement::{Asker, Gpu};
use crate::policy::view::{Client, NodeView};
use std::time::Duration;

impl NodeView {
    /// What a client asks for; `None` if its worker says nothing of it, or keeps it.
    #[must_use]
    pub fn asker(&self, client: &Client) -> Option<Asker> {
        let figures = client.figures.filter(|figures| !figures.fixed)?;
        Some(Asker { here: client.gpu, needed_bytes: figures.allocated_bytes, takes: figures.turn() })
    }

    /// The GPUs for a client that waits.
    #[must_use]
    pub fn seen_by(&self, asking: &Client) -> Vec<Gpu> {
        let mut taken_bytes = vec![0_u64; self.gpus.len()];
        let mut kept_bytes = vec![0_u64; self.gpus.len()];
        let mut seen: Vec<Gpu> = self
            .gpus
            .iter()
            .enumerate()
            .map(|(at, gpu)| Gpu {
                usable: gpu.is_usable() && self.may_be_on(asking, at) && self.keeps_apart(asking, at),
                taken: false,
                room_bytes: 0,
                free_bytes: 0,
                loading: false,
                last_used: gpu.last_used,
                wait: Duration::ZERO,
                bring: Duration::ZERO,
            })
            .collect();
        let mut loading = vec![false; self.gpus.len()];
        for client in self.clients.values().filter(|client| client.id != asking.id) {
            let there = client.moving_to.unwrap_or(client.gpu);
            let (Some(gpu), comes) = (seen.get_mut(there), client.moving_to.is_some()) else { continue };
            gpu.taken |= client.arrives_at(there, self.at);
            // Of one that has just come nothing is known yet.
            let Some(figures) = client.figures else { continue };
            let waits = figures.phase == Phase::Waiting;
            // Who only lingers there would give way.
            let works = !comes && !waits && figures.busy;
            gpu.taken |= works || waits;
            loading[there] |= comes || (works && figures.missing_bytes() > 0);
            if comes || waits {
                gpu.wait += figures.turn();
            } else if works {
                gpu.wait += left(figures.turn(), figures.turn_lasts);
            }
            let Some(bytes) = taken_bytes.get_mut(client.gpu) else { continue };
            *bytes = bytes.saturating_add(figures.resident_bytes);
            if client.rules.pinned {
                kept_bytes[client.gpu] = kept_bytes[client.gpu].saturating_add(figures.resident_bytes);
            }
        }
        let its = asking.figures.unwrap_or_default();
        for (at, gpu) in seen.iter_mut().enumerate() {
            let limit = self.gpus[at].limit_bytes;
            gpu.room_bytes = limit.saturating_sub(kept_bytes[at]);
            gpu.free_bytes = limit.saturating_sub(taken_bytes[at]);
            let over_its_link =
                (0..loading.len()).filter(|&other| loading[other] && self.topology.share_a_link(at, other));
            let loads = over_its_link.count();
            gpu.loading = loads > 0;
            let from_host = |bytes: u64| bytes as f64 / self.topology.bytes_per_second(at, loads + 1);
            let (seconds, way) = if at == asking.gpu {
                (from_host(its.missing_bytes()), Duration::ZERO)
            } else {
                // What it has where it is comes from there, if it all is there.
                let peer = self.topology.peer_bytes_per_second(asking.gpu, at);
                let peer = peer.filter(|_| its.missing_bytes() == 0);
                let bring = peer.map_or_else(
                    || from_host(its.allocated_bytes),
                    |speed| its.allocated_bytes as f64 / speed,
                );
                (bring, self.topology.moving())
            };
            gpu.bring = way + Duration::from_secs_f64(seconds);
        }
        seen
    }
}

/// What is left of a turn that has lasted so long. One that lasts longer than turns do is expected to last as long again.
fn left(takes: Duration, lasts: Duration) -> Duration {
    if lasts < takes { takes - lasts } else { lasts }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::event::{Event, Figures, What};
    use crate::policy::topology::Topology;

    fn node(whats: Vec<What>) -> NodeView {
        let mut node = NodeView::new(2, Topology { moving_ms: Some(0.0), ..Topology::default() });
        let gpus = (0..2).map(|gpu| What::WorkerStarted { gpu, limit_bytes: 80 << 30 });
        let at = Duration::from_secs(1);
        gpus.chain(whats).for_each(|what| node.apply(&Event { at, what }));
        node
    }

    fn brings(node: &NodeView) -> [u128; 2] {
        let seen = node.seen_by(node.client(1).unwrap());
        [0, 1].map(|gpu: usize| seen[gpu].bring.as_millis())
    }

    #[test]
    fn memory_that_comes_from_gpu_to_gpu_comes_as_fast_as_that() {
        let here = |resident_bytes| {
            let figures =
                Figures { client: 1, resident_bytes, allocated_bytes: 10_000_000_000, ..Figures::default() };
            vec![
                What::ClientAttached { client: 1, function: "f".into(), gpu: 0 },
                What::Reported { figures: vec![Some(vec![figures]), Some(Vec::new())] },
            ]
        };
        let linked = What::Linked { from: 0, to: 1, bytes_per_second: Some(400_000_000_000) };
        assert_eq!(brings(&node(here(10_000_000_000))), [0, 200]);
        assert_eq!(brings(&node([here(10_000_000_000), vec![linked.clone()]].concat())), [0, 25]);
        let wrong = What::Linked { from: 1, to: 0, bytes_per_second: None };
        assert_eq!(brings(&node([here(10_000_000_000), vec![wrong]].concat())), [0, 200], "the other way");
        let over = vec![linked.clone(), What::Unlinked { from: 0, to: 1 }];
        assert_eq!(brings(&node([here(10_000_000_000), over].concat())), [0, 200]);
        assert_eq!(
            brings(&node([here(0), vec![linked]].concat())),
            [200, 200],
            "it is nowhere but on the host"
        );
    }
}
