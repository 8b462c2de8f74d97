//! On the GPUs, as a worker does it: who waits for a turn, what is brought, and who leaves for it.

use crate::load_test::record::{Outcome, Record};
use crate::simulate::node::left::Held;
use crate::simulate::node::{FIRST_WORD, Node, Step, Turn};
use crate::simulate::work::record;
use rand::Rng;
use torpor_gpuserver::policy::due::due;
use torpor_gpuserver::policy::eviction::{Resident, victims};
use torpor_gpuserver::policy::reuse::Reuse;

impl Node<'_> {
    pub(super) fn wait(&mut self, client: usize, request: usize) {
        let it = &mut self.clients[client];
        (it.request, it.passed_at) = (Some(request), self.now);
        self.line_up(client);
        self.at(self.now + FIRST_WORD, Step::Tell { client, request });
    }

    pub(super) fn line_up(&mut self, client: usize) {
        let it = &self.clients[client];
        let due = due(it.passed_at, Some(self.work.functions[client].slo), it.turn());
        let (gpu, line) = (it.gpu, &mut self.gpus[it.gpu].line);
        let place = line.iter().position(|&(other, _)| other > due).unwrap_or(line.len());
        line.insert(place, (due, client));
        self.begin_turn(gpu);
    }

    pub(super) fn begin_turn(&mut self, gpu: usize) {
        if self.gpus[gpu].active.is_some() {
            return;
        }
        let Some((_, client)) = self.gpus[gpu].line.pop_front() else { return };
        let missing = self.clients[client].model.bytes - self.clients[client].resident_bytes;
        self.counter += 1;
        let it = &mut self.clients[client];
        (it.last_used, it.turns) = (self.counter, it.turns + 1);
        it.reuse.used(self.now);
        let lately = &mut self.gpus[gpu].lately;
        lately.pass(self.now, false);
        let works = it.model.works(lately.part()).mul_f64(it.model.factor(self.random.next_u64()));
        self.gpus[gpu].active =
            Some(Turn { client, began: self.now, loading: missing > 0, swaps: missing > 0, works });
        if missing == 0 {
            return self.at(self.now + works, Step::Finish { gpu });
        }
        self.make_room(gpu, client, missing);
        let source = self.source(client);
        self.clients[client].resident_bytes += missing;
        self.tally.swaps += 1;
        self.tally.swapped_bytes += missing;
        self.links.begin(self.now, gpu, missing, source);
        self.next_load();
    }

    /// Whoever the worker's own policy says leaves. What cannot be has no room at all, and is told at the start.
    pub(super) fn make_room(&mut self, gpu: usize, client: usize, missing: u64) {
        let held = self.held(gpu);
        let used: u64 = held.iter().map(|of_it| of_it.bytes).sum();
        let needed = (used + missing).saturating_sub(self.limit_bytes);
        if needed == 0 {
            return;
        }
        let line = &self.gpus[gpu].line;
        let usual = Reuse::usual(held.iter().map(|of_it| self.clients[of_it.client].reuse));
        let residents = held.iter().map(|&Held { client: id, bytes, last_used }| Resident {
            client: id as u64,
            bytes,
            last_used,
            until_used: self.clients[id].reuse.until_next(self.now, usual),
            next_turn: line.iter().position(|&(_, waiting)| waiting == id),
            shows: self.clients[id].model.shows(self.topology),
            evictable: id != client,
        });
        let residents: Vec<Resident> = residents.collect();
        for victim in victims(&residents, needed, self.policies.eviction).unwrap_or_default() {
            self.evict(gpu, victim as usize);
            self.tally.evictions += 1;
        }
    }

    pub(super) fn next_load(&mut self) {
        self.loads += 1;
        if let Some(end) = self.links.next_end() {
            self.at(end, Step::Loaded { loads: self.loads });
        }
    }

    pub(super) fn loaded(&mut self) {
        for gpu in self.links.ended(self.now) {
            let Some(turn) = &mut self.gpus[gpu].active else { continue };
            turn.loading = false;
            self.clients[turn.client].left = None;
            let model = self.clients[turn.client].model;
            let done = self.now.max(turn.began + turn.works) + model.swap_overhead(self.topology);
            self.at(done, Step::Finish { gpu });
        }
        self.next_load();
    }

    pub(super) fn finish(&mut self, gpu: usize, records: &mut [Option<Record>]) {
        let Some(turn) = self.gpus[gpu].active.take() else { return };
        let lasted = self.now - turn.began;
        self.gpus[gpu].busy += lasted;
        self.gpus[gpu].lately.pass(self.now, true);
        let it = &mut self.clients[turn.client];
        it.worked += lasted;
        let passed_at = it.passed_at;
        if let Some(id) = it.request.take() {
            let (request, function) = self.request(id);
            let latency = self.now - request.at + self.work.beside;
            let start = if turn.swaps { "swapped" } else { "warm" };
            let outcome = if latency > self.work.patience { Outcome::Timeout } else { Outcome::Ok };
            records[id] = Some(record(request, function, latency.min(self.work.patience), outcome, start));
            self.passed -= 1;
            let met = outcome == Outcome::Ok && latency <= function.slo;
            self.end(request.function, Some(self.now - passed_at), met);
        }
        self.begin_turn(gpu);
    }
}
