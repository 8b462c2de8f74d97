//! Dependencies.

use crate::core::CudaResult;
use crate::core::graph::{EdgeData, Graph, Node};
use crate::driver::argument::{In, Out};
use std::ffi::c_void;
use std::iter::repeat;
use std::ptr::null_mut;
use torpor_proto::error::CudaError;

/// `CUDA_ERROR_LOSSY_QUERY`: data of edges would be left out.
pub(crate) const LOSSY_QUERY: CudaError = CudaError(345);

/// Nodes that a new one comes behind, each with the data of its edge, if the program gives any.
pub(crate) fn behind(
    nodes: In<*mut c_void>,
    data: In<EdgeData>,
    count: usize,
) -> CudaResult<Vec<(*mut c_void, EdgeData)>> {
    let nodes = nodes.slice(count)?;
    let data = if data.is_null() { vec![EdgeData::default(); count] } else { data.slice(count)? };
    Ok(nodes.into_iter().zip(data).collect())
}

/// As [`behind`], without data.
pub(crate) fn behind_plain(nodes: In<*mut c_void>, count: usize) -> CudaResult<Vec<(*mut c_void, EdgeData)>> {
    Ok(nodes.slice(count)?.into_iter().map(|node| (node, EdgeData::default())).collect())
}

/// Gives all, or only their number if there is no list. Places beyond the last become null (`cuda.h`).
///
/// # Errors
/// `INVALID_VALUE` for a list without a place, which the driver refuses (580).
fn put_list(all: &[*mut c_void], list: Out<*mut c_void>, count: Out<usize>) -> CudaResult<()> {
    if list.is_null() {
        return count.put(all.len());
    }
    let room = count.get()?;
    if room == 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    count.put(all.len().min(room))?;
    list.put_all(all.iter().copied().chain(repeat(null_mut())).take(room))
}

pub(crate) fn nodes(graph: *mut c_void, list: Out<*mut c_void>, count: Out<usize>) -> CudaResult<()> {
    put_list(&Graph::find(graph)?.nodes()?, list, count)
}

pub(crate) fn roots(graph: *mut c_void, list: Out<*mut c_void>, count: Out<usize>) -> CudaResult<()> {
    put_list(&Graph::find(graph)?.roots()?, list, count)
}

fn refuse_data<'a>(edges: impl IntoIterator<Item = &'a EdgeData>) -> CudaResult<()> {
    if edges.into_iter().all(|data| *data == EdgeData::default()) { Ok(()) } else { Err(LOSSY_QUERY) }
}

pub(crate) fn all_plain(
    graph: *mut c_void,
    from: Out<*mut c_void>,
    to: Out<*mut c_void>,
    count: Out<usize>,
) -> CudaResult<()> {
    let edges = Graph::find(graph)?.edges()?;
    if from.is_null() && to.is_null() {
        return count.put(edges.len());
    }
    refuse_data(edges.iter().map(|(_, _, data)| data))?;
    let (begins, ends): (Vec<_>, Vec<_>) = edges.into_iter().map(|(from, to, _)| (from, to)).unzip();
    let room = count.get()?;
    put_list(&begins, from, count)?;
    count.put(room)?;
    put_list(&ends, to, count)
}

pub(crate) fn all(
    graph: *mut c_void,
    from: Out<*mut c_void>,
    to: Out<*mut c_void>,
    data: Out<EdgeData>,
    count: Out<usize>,
) -> CudaResult<()> {
    if data.is_null() {
        return all_plain(graph, from, to, count);
    }
    let edges = Graph::find(graph)?.edges()?;
    if from.is_null() || to.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    let room = count.get()?;
    let kept = edges.iter().take(room);
    data.put_all(kept.map(|(_, _, data)| *data))?;
    let (begins, ends): (Vec<_>, Vec<_>) = edges.into_iter().map(|(from, to, _)| (from, to)).unzip();
    put_list(&begins, from, count)?;
    count.put(room)?;
    put_list(&ends, to, count)
}

/// Gives nodes and the data of the edges at them.
fn put_ends(
    ends: Vec<(*mut c_void, EdgeData)>,
    list: Out<*mut c_void>,
    data: Out<EdgeData>,
    count: Out<usize>,
) -> CudaResult<()> {
    let (nodes, of_edges): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
    if !list.is_null() {
        if data.is_null() {
            refuse_data(&of_edges)?;
        } else {
            data.put_all(of_edges.into_iter().take(count.get()?))?;
        }
    }
    put_list(&nodes, list, count)
}

pub(crate) fn dependencies(
    node: *mut c_void,
    list: Out<*mut c_void>,
    data: Out<EdgeData>,
    count: Out<usize>,
) -> CudaResult<()> {
    put_ends(Node::find(node)?.dependencies()?, list, data, count)
}

pub(crate) fn dependencies_plain(
    node: *mut c_void,
    list: Out<*mut c_void>,
    count: Out<usize>,
) -> CudaResult<()> {
    dependencies(node, list, Out::nowhere(), count)
}

pub(crate) fn dependents(
    node: *mut c_void,
    list: Out<*mut c_void>,
    data: Out<EdgeData>,
    count: Out<usize>,
) -> CudaResult<()> {
    put_ends(Node::find(node)?.dependents()?, list, data, count)
}

pub(crate) fn dependents_plain(
    node: *mut c_void,
    list: Out<*mut c_void>,
    count: Out<usize>,
) -> CudaResult<()> {
    dependents(node, list, Out::nowhere(), count)
}

type Edges = Vec<(*mut c_void, *mut c_void, EdgeData)>;

fn edges(from: In<*mut c_void>, to: In<*mut c_void>, data: In<EdgeData>, count: usize) -> CudaResult<Edges> {
    let from = behind(from, data, count)?;
    Ok(from.into_iter().zip(to.slice(count)?).map(|((from, data), to)| (from, to, data)).collect())
}

pub(crate) fn connect(
    graph: *mut c_void,
    from: In<*mut c_void>,
    to: In<*mut c_void>,
    data: In<EdgeData>,
    count: usize,
) -> CudaResult<()> {
    Graph::find(graph)?.connect(&edges(from, to, data, count)?)
}

pub(crate) fn connect_plain(
    graph: *mut c_void,
    from: In<*mut c_void>,
    to: In<*mut c_void>,
    count: usize,
) -> CudaResult<()> {
    connect(graph, from, to, In::nothing(), count)
}

pub(crate) fn disconnect(
    graph: *mut c_void,
    from: In<*mut c_void>,
    to: In<*mut c_void>,
    data: In<EdgeData>,
    count: usize,
) -> CudaResult<()> {
    Graph::find(graph)?.disconnect(&edges(from, to, data, count)?)
}

pub(crate) fn disconnect_plain(
    graph: *mut c_void,
    from: In<*mut c_void>,
    to: In<*mut c_void>,
    count: usize,
) -> CudaResult<()> {
    disconnect(graph, from, to, In::nothing(), count)
}
