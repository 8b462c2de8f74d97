//! Making a launchable graph do what another graph does, which has the same nodes and dependencies.

use super::dag::NodeId;
use super::snapshot::Snapshot;
use super::work::Work;
use std::collections::HashMap;

/// `CUgraphExecUpdateResult`, `cudaGraphExecUpdateResult`: why a graph cannot be updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mismatch {
    /// Other nodes, or other dependencies.
    Topology = 2,
    /// Nodes of other kinds.
    NodeType = 3,
    /// What cannot be changed of a node.
    Parameters = 5,
    /// Nodes that cannot be changed at all.
    NotSupported = 6,
}

/// How an update went, and at which node of the new graph it failed.
pub type UpdateResult = Result<(), (Mismatch, Option<NodeId>)>;

/// Why one cannot become the other.
pub(super) fn compare(old: &Snapshot, new: &Snapshot) -> UpdateResult {
    if old.dag.len() != new.dag.len() {
        return Err((Mismatch::Topology, None));
    }
    let mut partners: HashMap<NodeId, NodeId> = HashMap::new();
    for ((old_id, _), (new_id, _)) in old.dag.iter().zip(new.dag.iter()) {
        partners.insert(new_id, old_id);
    }
    for ((old_id, before), (new_id, after)) in old.dag.iter().zip(new.dag.iter()) {
        let wrong = |mismatch| Err((mismatch, Some(new_id)));
        if before.work.node_type() != after.work.node_type() {
            return wrong(Mismatch::NodeType);
        }
        let is_same = before.dependencies.len() == after.dependencies.len()
            && after.dependencies.iter().all(|edge| {
                let from = partners.get(&edge.from);
                before.dependencies.iter().any(|other| Some(&other.from) == from && other.data == edge.data)
            });
        if !is_same {
            return wrong(Mismatch::Topology);
        }
        match (&before.work, &after.work) {
            (Work::Conditional(before), Work::Conditional(after)) if before.kind != after.kind => {
                return wrong(Mismatch::Parameters);
            }
            (Work::Allocate(before), Work::Allocate(after)) if before.address != after.address => {
                return wrong(Mismatch::NotSupported);
            }
            (Work::Free(before), Work::Free(after)) if before != after => {
                return wrong(Mismatch::NotSupported);
            }
            _ => {}
        }
        let none = Vec::new();
        let inner = |snapshot: &Snapshot, id| snapshot.inner.get(&id).map_or(0, Vec::len);
        if inner(old, old_id) != inner(new, new_id) {
            return wrong(Mismatch::Parameters);
        }
        let (before, after) =
            (old.inner.get(&old_id).unwrap_or(&none), new.inner.get(&new_id).unwrap_or(&none));
        for (before, after) in before.iter().zip(after) {
            compare(before, after).map_err(|(mismatch, _)| (mismatch, Some(new_id)))?;
        }
    }
    Ok(())
}

/// Makes one do what the other does, once they were compared. Nodes keep their numbers.
pub(super) fn apply(old: &mut Snapshot, new: Snapshot) {
    let Snapshot { dag, mut inner, conditions, .. } = new;
    let numbers: Vec<NodeId> = old.dag.iter().map(|(id, _)| id).collect();
    for (old_id, (new_id, after)) in numbers.into_iter().zip(dag.iter()) {
        if let Ok(entry) = old.dag.get_mut(old_id) {
            entry.work = after.work.clone();
        }
        let after = inner.remove(&new_id).unwrap_or_default();
        let before = old.inner.get_mut(&old_id).into_iter().flatten();
        before.zip(after).for_each(|(before, after)| apply(before, after));
    }
    old.conditions = conditions;
}
