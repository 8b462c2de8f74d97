//! What a graph consists of: nodes, and for each the edges from those that come before it.

use super::work::Work;
use crate::core::CudaResult;
use bytemuck::{Pod, Zeroable};
use std::collections::BTreeSet;
use torpor_proto::error::CudaError;

/// A node's place in its graph. Never given to another one.
pub(in crate::core) type NodeId = u32;

/// Nodes of one graph, removed ones included.
const LIMIT: usize = 1 << 20;

/// `CUgraphEdgeData`, `cudaGraphEdgeData`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct EdgeData {
    pub(in crate::core) from_port: u8,
    pub(in crate::core) to_port: u8,
    pub(in crate::core) kind: u8,
    pub(in crate::core) reserved: [u8; 5],
}

impl EdgeData {
    /// What an event among a launch's attributes stands for in a capture: `CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC` or
    /// `…_LAUNCH_ORDER`, with `CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC` (`cuda.h`).
    pub(in crate::core) fn of_launch_attribute(id: u32) -> Self {
        /// `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT`
        const PROGRAMMATIC_EVENT: u32 = 7;
        let from_port = if id == PROGRAMMATIC_EVENT { 1 } else { 2 };
        Self { from_port, kind: 1, ..Self::default() }
    }
}

/// A dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) struct Edge {
    pub(in crate::core) from: NodeId,
    pub(in crate::core) data: EdgeData,
}

impl Edge {
    /// One that is reached when the node is done.
    pub(in crate::core) fn after(from: NodeId) -> Self {
        Self { from, data: EdgeData::default() }
    }
}

/// A node and what comes before it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) work: Work,
    pub(super) dependencies: Vec<Edge>,
    /// It does nothing (`cuGraphNodeSetEnabled`).
    pub(super) is_disabled: bool,
}

/// Nodes and edges.
#[derive(Clone, Debug, Default)]
pub(in crate::core) struct Dag {
    entries: Vec<Option<Entry>>,
}

impl Dag {
    /// Adds a node.
    ///
    /// # Errors
    /// `INVALID_VALUE` for a dependency that is no node or is there twice, `OUT_OF_MEMORY` for too many nodes.
    pub(in crate::core) fn add(&mut self, work: Work, dependencies: Vec<Edge>) -> CudaResult<NodeId> {
        if self.entries.len() >= LIMIT {
            return Err(CudaError::OUT_OF_MEMORY);
        }
        self.check(&dependencies)?;
        self.entries.push(Some(Entry { work, dependencies, is_disabled: false }));
        Ok((self.entries.len() - 1) as NodeId)
    }

    /// `INVALID_VALUE` unless these are edges from different nodes of this graph.
    pub(in crate::core) fn check(&self, edges: &[Edge]) -> CudaResult<()> {
        let are_nodes = edges.iter().all(|edge| self.get(edge.from).is_some());
        let is_single = |(at, edge): (usize, &Edge)| !edges[..at].contains(edge);
        if are_nodes && edges.iter().enumerate().all(is_single) {
            Ok(())
        } else {
            Err(CudaError::INVALID_VALUE)
        }
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&Entry> {
        self.entries.get(id as usize)?.as_ref()
    }

    /// # Errors
    /// `INVALID_VALUE` if there is no such node.
    pub(super) fn get_mut(&mut self, id: NodeId) -> CudaResult<&mut Entry> {
        self.entries.get_mut(id as usize).and_then(Option::as_mut).ok_or(CudaError::INVALID_VALUE)
    }

    /// Takes a node out, and the edges at it.
    pub(super) fn remove(&mut self, id: NodeId) -> Option<Entry> {
        let entry = self.entries.get_mut(id as usize)?.take()?;
        for other in self.entries.iter_mut().flatten() {
            other.dependencies.retain(|edge| edge.from != id);
        }
        Some(entry)
    }

    /// All nodes in the order in which they were added.
    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Entry)> {
        (0..).zip(&self.entries).filter_map(|(id, entry)| Some((id, entry.as_ref()?)))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.iter().flatten().count()
    }

    /// Adds an edge.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it is there, or an end is no node.
    pub(super) fn connect(&mut self, edge: Edge, to: NodeId) -> CudaResult<()> {
        if self.get(edge.from).is_none() || edge.from == to {
            return Err(CudaError::INVALID_VALUE);
        }
        let dependencies = &mut self.get_mut(to)?.dependencies;
        if dependencies.contains(&edge) {
            return Err(CudaError::INVALID_VALUE);
        }
        dependencies.push(edge);
        Ok(())
    }

    /// Takes an edge out.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it is not there.
    pub(super) fn disconnect(&mut self, edge: Edge, to: NodeId) -> CudaResult<()> {
        let dependencies = &mut self.get_mut(to)?.dependencies;
        let at = dependencies.iter().position(|other| *other == edge).ok_or(CudaError::INVALID_VALUE)?;
        dependencies.remove(at);
        Ok(())
    }

    /// All edges, each with the node that it leads to.
    pub(super) fn edges(&self) -> impl Iterator<Item = (Edge, NodeId)> {
        self.iter().flat_map(|(id, entry)| entry.dependencies.iter().map(move |&edge| (edge, id)))
    }

    /// Nodes that nothing comes after.
    pub(super) fn leaves(&self) -> Vec<NodeId> {
        let mut has_dependents = vec![false; self.entries.len()];
        for (edge, _) in self.edges() {
            has_dependents[edge.from as usize] = true;
        }
        self.iter().map(|(id, _)| id).filter(|&id| !has_dependents[id as usize]).collect()
    }

    /// Which nodes come before these edges' ends, their beginnings included, by number.
    pub(in crate::core) fn reached_back_from(&self, edges: &[Edge]) -> Vec<bool> {
        let mut seen = vec![false; self.entries.len()];
        let mut open: Vec<NodeId> = edges.iter().map(|edge| edge.from).collect();
        while let Some(id) = open.pop() {
            let Some(entry) = self.get(id) else { continue };
            if !std::mem::replace(&mut seen[id as usize], true) {
                open.extend(entry.dependencies.iter().map(|edge| edge.from));
            }
        }
        seen
    }

    /// All nodes, each behind those that it depends on; of those that could come next, the one that was added first.
    ///
    /// # Errors
    /// `INVALID_VALUE` if there is a cycle.
    pub(super) fn order(&self) -> CudaResult<Vec<NodeId>> {
        if self.edges().all(|(edge, to)| edge.from < to) {
            return Ok(self.iter().map(|(id, _)| id).collect());
        }
        let mut missing: Vec<usize> = vec![0; self.entries.len()];
        let mut dependents: Vec<Vec<NodeId>> = vec![Vec::new(); self.entries.len()];
        for (edge, to) in self.edges() {
            missing[to as usize] += 1;
            dependents[edge.from as usize].push(to);
        }
        let is_ready = |&id: &NodeId| missing[id as usize] == 0;
        let mut ready: BTreeSet<NodeId> = self.iter().map(|(id, _)| id).filter(is_ready).collect();
        let mut order = Vec::new();
        while let Some(id) = ready.pop_first() {
            order.push(id);
            for &to in &dependents[id as usize] {
                missing[to as usize] -= 1;
                if missing[to as usize] == 0 {
                    ready.insert(to);
                }
            }
        }
        if order.len() == self.len() { Ok(order) } else { Err(CudaError::INVALID_VALUE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dag(edges: &[&[NodeId]]) -> Dag {
        let mut dag = Dag::default();
        for dependencies in edges {
            dag.add(Work::Empty, dependencies.iter().map(|&from| Edge::after(from)).collect()).unwrap();
        }
        dag
    }

    #[test]
    fn nodes_come_behind_what_they_depend_on() {
        let mut dag = dag(&[&[], &[], &[0], &[]]);
        assert_eq!(dag.order().unwrap(), [0, 1, 2, 3]);
        dag.connect(Edge::after(3), 1).unwrap();
        assert_eq!(dag.order().unwrap(), [0, 2, 3, 1]);
        assert_eq!(dag.leaves(), [1, 2]);
        assert_eq!(dag.connect(Edge::after(3), 1), Err(CudaError::INVALID_VALUE), "it is there");
        dag.connect(Edge::after(1), 3).unwrap();
        assert_eq!(dag.order(), Err(CudaError::INVALID_VALUE), "a cycle");
        dag.disconnect(Edge::after(1), 3).unwrap();
        dag.remove(3).unwrap();
        assert_eq!(dag.order().unwrap(), [0, 1, 2]);
        assert_eq!(dag.get(1).unwrap().dependencies, []);
        assert_eq!(dag.add(Work::Empty, vec![Edge::after(3)]), Err(CudaError::INVALID_VALUE));
        assert_eq!(dag.reached_back_from(&[Edge::after(2)]), [true, false, true, false]);
    }
}
