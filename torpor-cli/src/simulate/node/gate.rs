//! Before the GPUs: each function's own queue, and the router's gate behind all of them.

use crate::load_test::record::{Outcome, Record};
use crate::simulate::node::Node;
use crate::simulate::work::record;
use std::time::Duration;
use torpor_router::order::{Candidate, Ended};
use torpor_router::queue::Priority;

impl Node<'_> {
    pub(super) fn arrive(&mut self, id: usize) {
        let (request, function) = self.request(id);
        let due = self.begin + request.at + function.slo;
        self.clients[request.function].queue.push(Priority::Normal, due, id);
        self.queue_at_gate(request.function);
    }

    /// A function's next request stands before the gate when its client has nothing to do.
    pub(super) fn queue_at_gate(&mut self, client: usize) {
        if self.clients[client].gated {
            return;
        }
        let Some(id) = self.clients[client].queue.pop(self.begin + self.now) else { return };
        let (request, function) = self.request(id);
        self.clients[client].gated = true;
        self.counter += 1;
        let candidate = Candidate {
            function: function.name.clone(),
            priority: Priority::Normal,
            due: self.begin + request.at + function.slo,
            arrival: self.counter,
            percentile: self.work.percentile,
        };
        self.gate.push(candidate);
        self.gated.push(id);
    }

    pub(super) fn let_pass(&mut self, records: &mut [Option<Record>]) {
        self.expire(records);
        while self.passed < self.policies.max_running
            && let Some(next) = self.order.next(self.begin + self.now, &self.gate)
        {
            self.gate.swap_remove(next);
            let id = self.gated.swap_remove(next);
            self.passed += 1;
            self.wait(self.work.requests[id].function, id);
        }
    }

    /// Requests that have waited for too long are answered so.
    pub(super) fn expire(&mut self, records: &mut [Option<Record>]) {
        let patience = self.work.patience;
        while let Some(at) = self.gated.iter().position(|&id| self.now > self.work.requests[id].at + patience)
        {
            self.gate.swap_remove(at);
            let id = self.gated.swap_remove(at);
            let (request, function) = self.request(id);
            records[id] = Some(record(request, function, patience, Outcome::Timeout, "none"));
            self.end(request.function, None, false);
        }
    }

    pub(super) fn end(&mut self, client: usize, took: Option<Duration>, met: bool) {
        let function = self.work.functions[client].name.clone();
        let ended = Ended { function, took, met, percentile: self.work.percentile };
        self.order.ended(self.begin + self.now, &ended);
        self.clients[client].gated = false;
        self.queue_at_gate(client);
    }
}
