//! What a launch of a graph consists of: graphs that the worker has, and work of this process in between.

use super::numbers::Number;
use super::program::{HostWork, Part};
use super::work::HostCall;
use crate::core::stream::{Stream, host_function};
use crate::core::{Client, CudaResult, HostFunction};
use std::sync::Arc;
use torpor_proto::command::{GraphAppend, GraphDestroy, GraphInstantiate, GraphLaunch, GraphUpdate};

/// Bytes of records in one [`GraphAppend`].
const APPEND_BYTES: usize = 16 * 1024;

/// `CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY`, the one that a worker hears of.
pub(super) const USE_NODE_PRIORITY: u64 = 8;

/// What one launch consists of.
pub(super) enum Piece {
    Commands(Arc<Number>),
    Functions(Vec<HostWork>),
}

impl Piece {
    pub(super) fn new(client: &'static Client, part: Part, flags: u64) -> CudaResult<Self> {
        let words = match part {
            Part::Functions(functions) => return Ok(Self::Functions(functions)),
            Part::Commands(words) => words,
        };
        let number = Arc::new(Number::take()?);
        let build = || {
            // There is a graph to append to even if it is empty.
            client.post(&GraphAppend { graph: number.0, reserved: 0 }, &[])?;
            append(&number, &words, |command, tail| client.post(command, tail))?;
            client.call(
                &GraphInstantiate { graph: number.0, reserved: 0, flags: flags & USE_NODE_PRIORITY },
                &[],
            )
        };
        let built = build();
        let piece = Self::Commands(number);
        match built {
            Ok(_) => Ok(piece),
            Err(error) => {
                piece.destroy();
                Err(error)
            }
        }
    }

    /// Whether a part is of its kind.
    pub(super) fn is_alike(&self, part: &Part) -> bool {
        matches!(
            (part, self),
            (Part::Commands(_), Self::Commands(_)) | (Part::Functions(_), Self::Functions(_))
        )
    }

    /// Makes it what a part says, in the order of a stream.
    pub(super) fn updated(
        &self,
        part: Part,
        client: &'static Client,
        stream: &'static Stream,
        flags: u64,
    ) -> CudaResult<Self> {
        match (part, self) {
            (Part::Commands(words), Self::Commands(number)) => {
                append(number, &words, |command, tail| stream.post(client, command, tail))?;
                stream.post(client, &GraphUpdate { graph: number.0, reserved: 0 }, &[])?;
                Ok(Self::Commands(number.clone()))
            }
            (part, _) => Self::new(client, part, flags),
        }
    }

    /// Tells the worker that it will not be launched any more.
    pub(super) fn destroy(&self) {
        if let Self::Commands(number) = self {
            let number = number.clone();
            // The process may be ending and the server gone: there is nobody to tell.
            let _ = host_function::when_posted(move |client| {
                client.post(&GraphDestroy { graph: number.0, reserved: 0 }, &[])
            });
        }
    }

    /// Whether it is of this process, of which a driver that puts launches of one graph in order knows nothing.
    pub(super) fn is_on_host(&self) -> bool {
        matches!(self, Self::Functions(_))
    }
}

fn append(
    number: &Number,
    words: &[u64],
    mut post: impl FnMut(&GraphAppend, &[u8]) -> CudaResult<()>,
) -> CudaResult<()> {
    let command = GraphAppend { graph: number.0, reserved: 0 };
    bytemuck::cast_slice(words).chunks(APPEND_BYTES).try_for_each(|piece| post(&command, piece))
}

/// Posts a launch's pieces. Gives the place of the last command if that is held behind a host function.
pub(super) fn post(
    pieces: &[Piece],
    client: &'static Client,
    stream: &'static Stream,
) -> CudaResult<Option<u64>> {
    let mut held = None;
    for piece in pieces {
        match piece {
            Piece::Commands(number) => {
                let command = GraphLaunch { graph: number.0, stream: stream.number };
                held = stream.post_behind(client, &command, &[], None)?;
            }
            Piece::Functions(functions) => {
                for work in functions {
                    match work {
                        // SAFETY: the program gave them to be called by any thread at every launch of the graph.
                        HostWork::Call(HostCall { function, data }) => unsafe {
                            stream.call_in_order(HostFunction::Launched(*function), *data)?;
                        },
                        HostWork::Copy(copy) => stream.copy_in_order(copy.clone())?,
                        HostWork::Wait(waits) => stream.wait_in_order(waits.clone())?,
                    }
                }
            }
        }
    }
    Ok(held)
}
