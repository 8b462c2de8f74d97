//! A graph as it was when it was made launchable, with the graphs in it.

use super::conditional::Condition;
use super::dag::{Dag, Entry, NodeId};
use super::nested::MOST_DEPTH;
use super::user_object::References;
use super::work::Work;
use super::{Graph, memory};
use crate::core::CudaResult;
use std::collections::HashMap;
use torpor_proto::command::EventRecord;
use torpor_proto::error::CudaError;

/// A graph's contents.
pub(super) struct Snapshot {
    /// Of which graph.
    graph: u64,
    pub(super) dag: Dag,
    /// The graphs that belong to nodes.
    pub(super) inner: HashMap<NodeId, Vec<Snapshot>>,
    pub(super) conditions: Vec<Condition>,
    _references: References,
}

impl Snapshot {
    /// What a graph is now.
    ///
    /// # Errors
    /// `INVALID_VALUE` while it is being captured, or if its dependencies form a cycle.
    pub(super) fn take(graph: &'static Graph) -> CudaResult<Self> {
        Self::take_within(graph, MOST_DEPTH)
    }

    fn take_within(graph: &'static Graph, depth: usize) -> CudaResult<Self> {
        let depth = depth.checked_sub(1).ok_or(CudaError::NOT_SUPPORTED)?;
        let (dag, conditions, references) = graph.with(|state| {
            if state.is_captured {
                return Err(CudaError::INVALID_VALUE);
            }
            Ok((state.dag.clone(), state.conditions.clone(), state.references.clone()))
        })?;
        dag.order()?;
        let mut inner = HashMap::new();
        for (id, entry) in dag.iter() {
            let graphs: &[&'static Graph] = match &entry.work {
                Work::Child(graph) => &[*graph],
                Work::Conditional(conditional) => &conditional.bodies,
                _ => continue,
            };
            let taken = graphs.iter().map(|graph| Self::take_within(graph, depth));
            inner.insert(id, taken.collect::<CudaResult<Vec<_>>>()?);
        }
        Ok(Self { graph: graph.id(), dag, inner, conditions, _references: references })
    }

    /// A node, in this graph or one in it.
    pub(super) fn find_mut(&mut self, graph: &Graph, id: NodeId) -> Option<&mut Entry> {
        if self.graph == graph.id() {
            return self.dag.get_mut(id).ok();
        }
        self.inner.values_mut().flatten().find_map(|inner| inner.find_mut(graph, id))
    }

    /// Makes a node with a graph in it have another one.
    ///
    /// # Errors
    /// `INVALID_VALUE` if there is no such node.
    pub(super) fn inner_mut(&mut self, graph: &Graph, id: NodeId) -> Option<&mut Vec<Self>> {
        if self.graph == graph.id() {
            return self.inner.get_mut(&id);
        }
        self.inner.values_mut().flatten().find_map(|inner| inner.inner_mut(graph, id))
    }

    /// Every node's work, those of graphs in it included.
    fn each_work(&self, what: &mut impl FnMut(&Work)) {
        self.dag.iter().for_each(|(_, entry)| what(&entry.work));
        self.inner.values().flatten().for_each(|inner| inner.each_work(what));
    }

    /// The events that every launch records.
    pub(super) fn recorded_events(&self) -> Vec<u32> {
        let mut events = Vec::new();
        self.each_work(&mut |work| {
            events.extend(work.as_command::<EventRecord>().map(|(record, _)| record.event))
        });
        events
    }

    /// Addresses of memory that every launch gives to the program, allocated and not freed, and of what it takes, freed and not
    /// allocated.
    pub(super) fn memory(&self) -> Handover {
        let mut balance: HashMap<u64, i64> = HashMap::new();
        self.each_work(&mut |work| match work {
            Work::Allocate(held) => *balance.entry(held.address).or_default() += 1,
            Work::Free(address) => *balance.entry(*address).or_default() -= 1,
            _ => {}
        });
        let of = |sign: i64| {
            let some = balance.iter().filter(move |(_, count)| count.signum() == sign);
            some.map(|(address, _)| *address).collect()
        };
        Handover { given: of(1), taken: of(-1) }
    }

    /// How much staging its copies of pageable memory need.
    pub(super) fn staged_bytes(&self) -> CudaResult<u64> {
        let mut bytes = Some(0_u64);
        self.each_work(&mut |work| {
            if let Work::Pageable(copy) = work {
                bytes = bytes.and_then(|bytes| bytes.checked_add(copy.staged_bytes()));
            }
        });
        bytes.ok_or(CudaError::OUT_OF_MEMORY)
    }
}

/// What passes between launches of a graph and the program.
pub(super) struct Handover {
    given: Vec<u64>,
    taken: Vec<u64>,
}

impl Handover {
    /// A launch was posted.
    pub(super) fn note_launch(&self) {
        self.given.iter().for_each(|&address| memory::give_to_program(address));
        self.taken.iter().for_each(|&address| memory::take_by_launch(address));
    }
}
