//! What the server does: it hears who waits, asks what all do, and moves whom its decider says.

use crate::simulate::node::{NEXT_WORD, Node, Step};
use std::time::Duration;
use torpor_gpuserver::policy::decider::Decision;
use torpor_gpuserver::policy::event::{Figures, Phase, What, Why};

impl Node<'_> {
    /// The server hears that a client waits, asks the workers, and does what the decider says.
    pub(super) fn tell(&mut self, client: usize, request: usize) {
        let it = &self.clients[client];
        let is_in_line = self.gpus[it.gpu].line.iter().any(|&(_, waiting)| waiting == client);
        if it.request != Some(request) {
            return;
        }
        if is_in_line && !it.moving {
            self.hear(What::Waiting { client: client as u64 });
            self.decider.ask();
            let figures = self.figures();
            for decision in self.hear(What::Reported { figures }) {
                self.carry_out(decision);
            }
        }
        if is_in_line || self.clients[client].moving {
            self.at(self.now + NEXT_WORD, Step::Tell { client, request });
        }
    }

    pub(super) fn figures(&self) -> Vec<Option<Vec<Figures>>> {
        let mut all = vec![Vec::new(); self.gpus.len()];
        for (id, it) in self.clients.iter().enumerate().filter(|(_, it)| !it.moving) {
            let turn = self.gpus[it.gpu].active.filter(|turn| turn.client == id);
            let phase = match (turn, it.request) {
                (Some(_), _) => Phase::Active,
                (None, Some(_)) => Phase::Waiting,
                (None, None) => Phase::Idle,
            };
            all[it.gpu].push(Figures {
                client: id as u64,
                phase,
                busy: phase != Phase::Idle,
                fixed: false,
                resident_bytes: if turn.is_some_and(|turn| turn.loading) { 0 } else { it.resident_bytes },
                allocated_bytes: it.model.bytes,
                worked: it.worked,
                turns: it.turns,
                turn_lasts: turn.map_or(Duration::ZERO, |turn| self.now - turn.began),
            });
        }
        all.into_iter().map(Some).collect()
    }

    pub(super) fn carry_out(&mut self, Decision { client, generation, to, why }: Decision) {
        let id = client as usize;
        let from = self.clients[id].gpu;
        let is_in_line = self.gpus[from].line.iter().any(|&(_, waiting)| waiting == id);
        if generation != self.clients[id].generation || !is_in_line {
            let reason = "it has its turn".to_owned();
            self.hear(What::Stayed { client, to, why, reason, generation });
            return;
        }
        self.gpus[from].line.retain(|&(_, waiting)| waiting != id);
        self.leave(id, to);
        let it = &mut self.clients[id];
        (it.moving, it.generation) = (true, it.generation + 1);
        let generation = it.generation;
        self.hear(What::MoveBegan { client, to, why, generation });
        self.tally.moves += 1;
        self.at(self.now + self.moves, Step::Arrived { client: id, to, from });
    }

    pub(super) fn arrived(&mut self, client: usize, to: usize, from: usize) {
        let it = &mut self.clients[client];
        (it.moving, it.gpu, it.generation) = (false, to, it.generation + 1);
        let (generation, took) = (it.generation, self.moves);
        self.hear(What::Moved { client: client as u64, from, to, why: Why::Waiting, took, generation });
        self.line_up(client);
    }
}
