//! What a worker is told of a graph: records, node after node in an order that respects dependencies.
//!
//! A node comes behind the one before it alone, unless a [`GraphDependencies`] before it names others. Host functions are
//! called here, not by the worker, pageable memory is copied as they are called, and words are waited for: that cuts a graph into parts, each
//! launched when what is before it is over.

use super::dag::{EdgeData, NodeId};
use super::pageable::{Half, HostCopy, OwnStaging, Places};
use super::snapshot::Snapshot;
use super::work::{HostCall, Work};
use crate::core::word::{Wait, WordStep};
use crate::core::{CudaResult, client};
use std::collections::HashMap;
use std::sync::Arc;
use torpor_proto::command::{
    Command, GraphBody, GraphBodyEnd, GraphCondition, GraphConditional, GraphDependencies, GraphEmpty,
};
use torpor_proto::error::CudaError;
use torpor_proto::ring::{NO_SLOT, encode_record};

/// A part of a graph, in the order in which they are launched.
#[derive(Debug)]
pub(super) enum Part {
    /// For a worker.
    Commands(Vec<u64>),
    /// For a thread of this process, after what is before.
    Functions(Vec<HostWork>),
}

/// What a thread of this process does.
#[derive(Clone, Debug)]
pub(super) enum HostWork {
    /// Calls a function of the program.
    Call(HostCall),
    /// Copies memory of the program.
    Copy(Arc<HostCopy>),
    /// Waits for words.
    Wait(Arc<[Wait]>),
}

/// Where an edge begins in a flat list of nodes.
type From = (usize, EdgeData);

/// A node without graphs in it.
struct Flat<'a> {
    step: Step<'a>,
    dependencies: Vec<From>,
}

enum Step<'a> {
    Command(Arc<[u64]>),
    Empty,
    Host(HostWork),
    Conditional(u64, u32, &'a [Snapshot]),
}

/// The parts of a graph.
///
/// # Errors
/// `NOT_SUPPORTED` for host functions or pageable memory that depend on a condition, `INVALID_VALUE` for a cycle.
pub(super) fn parts(snapshot: &Snapshot, staging: Option<&OwnStaging>) -> CudaResult<Vec<Part>> {
    let mut nodes = Vec::new();
    flatten(snapshot, &[], &mut Places::of(staging), &mut nodes)?;
    let phases = phases(&nodes);
    let last = phases.iter().copied().max().unwrap_or(0);
    let mut parts = Vec::new();
    for phase in 0..=last {
        let is_here = |at: usize| phases[at] == phase && !matches!(nodes[at].step, Step::Host(_));
        let mut words = Vec::new();
        for condition in snapshot.conditions.iter().filter(|_| phase == 0) {
            let &super::Condition { number, value, flags } = condition;
            put(&mut words, &GraphCondition { condition: number, value, flags }, &[]);
        }
        let has_nodes = (0..nodes.len()).any(is_here);
        write(&nodes, is_here, &mut words)?;
        if has_nodes || last == 0 {
            parts.push(Part::Commands(words));
        }
        let functions = nodes.iter().zip(&phases).filter_map(|(node, &at)| match &node.step {
            Step::Host(work) if at == phase => Some(work.clone()),
            _ => None,
        });
        let mut functions: Vec<HostWork> = functions.collect();
        // What is beside a wait may write the word.
        functions.sort_by_key(|work| matches!(work, HostWork::Wait(_)));
        if !functions.is_empty() {
            parts.push(Part::Functions(functions));
        }
    }
    Ok(parts)
}

/// Appends a graph's nodes, those of graphs in it in the place of their node. The graph comes behind `entry`; gives the nodes that
/// nothing in it comes after.
fn flatten<'a>(
    snapshot: &'a Snapshot,
    entry: &[From],
    places: &mut Places<'_>,
    nodes: &mut Vec<Flat<'a>>,
) -> CudaResult<Vec<usize>> {
    let mut exits: HashMap<NodeId, Vec<usize>> = HashMap::new();
    for id in snapshot.dag.order()? {
        let node = snapshot.dag.get(id).ok_or(CudaError::INVALID_VALUE)?;
        let mut dependencies: Vec<From> = Vec::new();
        for edge in &node.dependencies {
            for &from in exits.get(&edge.from).into_iter().flatten() {
                dependencies.push((from, edge.data));
            }
        }
        if node.dependencies.is_empty() {
            dependencies.extend_from_slice(entry);
        }
        let step = match &node.work {
            _ if node.is_disabled => Step::Empty,
            Work::Command(posted) => Step::Command(posted.record.clone()),
            Work::Pageable(copy) => {
                let steps = copy.halves(places)?.into_iter().map(|half| match half {
                    Half::Device(posted) => Step::Command(posted.record),
                    Half::Host(copy) => Step::Host(HostWork::Copy(copy)),
                });
                exits.insert(id, vec![chain(steps, dependencies, nodes)]);
                continue;
            }
            Work::Words(operations) => {
                let steps = client()?.word_steps(operations)?.into_iter().map(|step| match step {
                    WordStep::Write(write) => Step::Command(record(&write)),
                    WordStep::Wait(waits) => Step::Host(HostWork::Wait(waits)),
                });
                let nothing = (steps.len() == 0).then_some(Step::Empty);
                exits.insert(id, vec![chain(steps.chain(nothing), dependencies, nodes)]);
                continue;
            }
            Work::Host(call) => Step::Host(HostWork::Call(*call)),
            Work::Conditional(conditional) => {
                let bodies = snapshot.inner.get(&id).ok_or(CudaError::INVALID_VALUE)?;
                Step::Conditional(conditional.number, conditional.kind, bodies)
            }
            Work::Child(_) => {
                let child = snapshot.inner.get(&id).and_then(|inner| inner.first());
                let child = child.ok_or(CudaError::INVALID_VALUE)?;
                exits.insert(id, vec![nest(child, dependencies, places, nodes)?]);
                continue;
            }
            Work::Empty | Work::Allocate(_) | Work::Free(_) => Step::Empty,
        };
        exits.insert(id, vec![nodes.len()]);
        nodes.push(Flat { step, dependencies });
    }
    Ok(snapshot.dag.leaves().iter().filter_map(|id| exits.get(id)).flatten().copied().collect())
}

/// Steps one behind the other, of which there is one at least; gives the last.
fn chain<'a>(
    steps: impl Iterator<Item = Step<'a>>,
    mut dependencies: Vec<From>,
    nodes: &mut Vec<Flat<'a>>,
) -> usize {
    for step in steps {
        let behind = vec![plain(nodes.len())];
        nodes.push(Flat { step, dependencies: std::mem::replace(&mut dependencies, behind) });
    }
    nodes.len() - 1
}

/// A graph between two empty nodes; gives the last.
fn nest<'a>(
    child: &'a Snapshot,
    dependencies: Vec<From>,
    places: &mut Places<'_>,
    nodes: &mut Vec<Flat<'a>>,
) -> CudaResult<usize> {
    let first = nodes.len();
    nodes.push(Flat { step: Step::Empty, dependencies });
    let leaves = flatten(child, &[plain(first)], places, nodes)?;
    if leaves.is_empty() {
        return Ok(first);
    }
    nodes.push(Flat { step: Step::Empty, dependencies: leaves.into_iter().map(plain).collect() });
    Ok(nodes.len() - 1)
}

/// From a node's end.
fn plain(from: usize) -> From {
    (from, EdgeData::default())
}

/// Behind how many rounds of host functions each node comes.
fn phases(nodes: &[Flat<'_>]) -> Vec<usize> {
    let mut phases: Vec<usize> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let behind =
            |&(from, _): &From| phases[from] + usize::from(matches!(nodes[from].step, Step::Host(_)));
        phases.push(node.dependencies.iter().map(behind).max().unwrap_or(0));
    }
    phases
}

/// Appends the records of the nodes that are in this part.
fn write(nodes: &[Flat<'_>], is_here: impl Fn(usize) -> bool, words: &mut Vec<u64>) -> CudaResult<()> {
    // Where each node is in the part.
    let mut numbers: HashMap<usize, u64> = HashMap::new();
    for (at, node) in nodes.iter().enumerate().filter(|&(at, _)| is_here(at)) {
        let number = numbers.len() as u64;
        let from: Vec<[u64; 2]> = node
            .dependencies
            .iter()
            .filter_map(|(from, data)| Some([*numbers.get(from)?, bytemuck::cast(*data)]))
            .collect();
        let follows = match number.checked_sub(1) {
            None => from.is_empty(),
            Some(last) => from == [[last, 0]],
        };
        if !follows {
            for piece in pieces(&from) {
                put(words, &piece.0, bytemuck::cast_slice(piece.1));
            }
        }
        numbers.insert(at, number);
        match &node.step {
            Step::Command(record) => words.extend_from_slice(record),
            Step::Empty => put(words, &GraphEmpty {}, &[]),
            Step::Host(_) => return Err(CudaError::NOT_SUPPORTED),
            &Step::Conditional(condition, kind, bodies) => {
                let count = bodies.len() as u32;
                put(words, &GraphConditional { condition, kind, bodies: count }, &[]);
                bodies.iter().enumerate().try_for_each(|(at, body)| write_body(body, at as u32, words))?;
            }
        }
    }
    Ok(())
}

/// A set of dependencies in records of limited length: the first replaces those that there were, the others add to it.
fn pieces(from: &[[u64; 2]]) -> Vec<(GraphDependencies, &[[u64; 2]])> {
    const MOST: usize = 256;
    if from.is_empty() {
        return vec![(GraphDependencies { adds: 0, reserved: 0 }, from)];
    }
    let chunks = from.chunks(MOST).enumerate();
    chunks.map(|(at, chunk)| (GraphDependencies { adds: u32::from(at > 0), reserved: 0 }, chunk)).collect()
}

fn write_body(body: &Snapshot, index: u32, words: &mut Vec<u64>) -> CudaResult<()> {
    put(words, &GraphBody { index, reserved: 0 }, &[]);
    for &super::Condition { number, value, flags } in &body.conditions {
        put(words, &GraphCondition { condition: number, value, flags }, &[]);
    }
    let mut nodes = Vec::new();
    flatten(body, &[], &mut Places::of(None), &mut nodes)?;
    write(&nodes, |_| true, words)?;
    put(words, &GraphBodyEnd {}, &[]);
    Ok(())
}

fn record<C: Command>(command: &C) -> Arc<[u64]> {
    let mut words = Vec::new();
    put(&mut words, command, &[]);
    words.into()
}

fn put<C: Command>(words: &mut Vec<u64>, command: &C, tail: &[u8]) {
    encode_record(words, C::OPCODE, NO_SLOT, command.words(), tail);
}
