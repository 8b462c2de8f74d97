//! Graphs made of graphs: clones, and graphs in nodes of others.

use super::dag::{EdgeData, NodeId};
use super::{Graph, Node, State, Work, discard_inner, snapshot};
use crate::core::CudaResult;
use std::ffi::c_void;
use torpor_proto::error::CudaError;

/// Graphs in graphs in graphs: deeper than any program goes, and few enough for a small stack.
pub(super) const MOST_DEPTH: usize = 32;

impl Graph {
    /// `cuGraphClone`.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` if it has memory or conditions among its nodes, as CUDA has it; `OUT_OF_MEMORY`.
    pub fn duplicate(&'static self) -> CudaResult<&'static Self> {
        self.duplicate_within(MOST_DEPTH)
    }

    fn duplicate_within(&'static self, depth: usize) -> CudaResult<&'static Self> {
        let inner_depth = depth.checked_sub(1).ok_or(CudaError::NOT_SUPPORTED)?;
        let (mut dag, references) = self.with(|state| (state.dag.clone(), state.references.clone()));
        let copy = |work: &Work| match work {
            Work::Child(graph) => {
                let inner = graph.duplicate_within(inner_depth)?;
                inner.with(|state| state.is_inner = true);
                Ok(Work::Child(inner))
            }
            Work::Conditional(_) | Work::Allocate(_) | Work::Free(_) => Err(CudaError::NOT_SUPPORTED),
            other => Ok(other.clone()),
        };
        let ids: Vec<NodeId> = dag.iter().map(|(id, _)| id).collect();
        let mut made = Vec::new();
        for id in ids {
            let entry = dag.get_mut(id)?;
            match copy(&entry.work) {
                Ok(work) => {
                    made.push(work.clone());
                    entry.work = work;
                }
                Err(error) => {
                    made.iter().for_each(discard_inner);
                    return Err(error);
                }
            }
        }
        let clone = Self::create().inspect_err(|_| made.iter().for_each(discard_inner))?;
        let original = Some(self.id());
        clone.with(|state| *state = State { dag, references, original, ..State::default() });
        Ok(clone)
    }

    /// `cuGraphAddChildGraphNode`: a node that does what another graph, which is cloned, does.
    ///
    /// # Errors
    /// As [`Self::duplicate`] and [`Self::add`].
    pub fn add_child(
        &'static self,
        child: &'static Self,
        dependencies: &[(*mut c_void, EdgeData)],
    ) -> CudaResult<&'static Node> {
        let depth = self.inner_depth()?;
        let inner = child.duplicate_within(MOST_DEPTH - depth)?;
        inner.with(|state| (state.is_inner, state.depth) = (true, depth));
        self.add(Work::Child(inner), dependencies).inspect_err(|_| inner.discard())
    }

    /// A graph for a node that does what a launchable graph does.
    pub(super) fn of_snapshot(snapshot: &snapshot::Snapshot) -> CudaResult<&'static Self> {
        let inner = Self::create()?;
        let mut dag = snapshot.dag.clone();
        let ids: Vec<NodeId> = dag.iter().map(|(id, _)| id).collect();
        let copied = ids.into_iter().try_for_each(|id| {
            let entry = dag.get_mut(id)?;
            let nested = snapshot.inner.get(&id).and_then(|inner| inner.first());
            entry.work = match (&entry.work, nested) {
                (Work::Child(_), Some(nested)) => Work::Child(Self::of_snapshot(nested)?),
                (Work::Conditional(_) | Work::Allocate(_) | Work::Free(_), _) => {
                    return Err(CudaError::STREAM_CAPTURE_UNSUPPORTED);
                }
                (work, _) => work.clone(),
            };
            Ok(())
        });
        copied.inspect_err(|_| inner.discard())?;
        inner.with(|state| *state = State { dag, is_inner: true, depth: 1, ..State::default() });
        Ok(inner)
    }

    /// In how many graphs one in this one is.
    pub(super) fn inner_depth(&self) -> CudaResult<usize> {
        let depth = self.with(|state| state.depth + 1);
        if depth < MOST_DEPTH { Ok(depth) } else { Err(CudaError::NOT_SUPPORTED) }
    }

    /// `cuGraphNodeFindInClone`.
    ///
    /// # Errors
    /// `INVALID_VALUE` if this graph was not cloned from that node's.
    pub fn find_in_clone(&'static self, original: &Node) -> CudaResult<&'static Node> {
        let (graph, id) = original.place();
        let has = self.with(|state| state.original == Some(graph.id()) && state.dag.get(id).is_some());
        if has { self.node(id) } else { Err(CudaError::INVALID_VALUE) }
    }
}
