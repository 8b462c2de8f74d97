//! Putting the overview together when somebody looks: the node server is asked, the functions are counted.

use crate::gate::Gate;
use crate::node::Node;
use crate::overview::{NodeReport, Overview, ServedView};
use crate::registry::{Registry, Served};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How old what the node server said may be: many may look at once, and one question is enough.
const FRESH: Duration = Duration::from_millis(500);

/// Where an overview comes from.
#[derive(Debug)]
pub struct Watch {
    registry: Arc<Registry>,
    node: Arc<Node>,
    gate: Arc<Gate>,
    last: Mutex<Option<(Instant, Result<NodeReport, String>)>>,
}

impl Watch {
    /// Over the functions of a router and the node that they run on.
    #[must_use]
    pub fn new(registry: Arc<Registry>, node: Arc<Node>, gate: Arc<Gate>) -> Self {
        Self { registry, node, gate, last: Mutex::default() }
    }

    /// What the node server said at most half a second ago.
    ///
    /// # Errors
    /// That it does not answer, for people.
    pub async fn report(&self) -> Result<NodeReport, String> {
        let mut last = self.last.lock().await;
        if let Some((at, report)) = &*last
            && at.elapsed() < FRESH
        {
            return report.clone();
        }
        let report = self.node.report().await;
        *last = Some((Instant::now(), report.clone()));
        report
    }

    /// How everything is. Without the node server it has the functions alone, and says so.
    pub async fn overview(&self) -> Overview {
        let report = self.report().await;
        let served = self.registry.all().iter().map(|served| self.served(served)).collect();
        match report {
            Ok(report) => Overview::of(&report, served, String::new()),
            Err(trouble) => Overview::of(&NodeReport::default(), served, trouble),
        }
    }

    fn served(&self, served: &Served) -> (String, ServedView) {
        let function = &served.function;
        let (instances, queued) = function.rows();
        let running: usize = instances.iter().map(|instance| instance.requests).sum();
        // Those at the gate have their place at a process already.
        let held = self.gate.waiting(&function.name);
        let view = ServedView {
            instances: instances.len(),
            running: running.saturating_sub(held),
            waiting: queued + held,
            slo_ms: served.objective.and_then(|objective| objective.as_millis().try_into().ok()),
            fared: function.recent.fared(),
        };
        (function.name.to_string(), view)
    }
}
