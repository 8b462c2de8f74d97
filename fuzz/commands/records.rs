//! How commands that may also be a graph's records are put into words.

use crate::program::{Address, Moved, Node};
use torpor_proto::command::*;

/// A record: its opcode, words and variable part.
pub type Record = (u16, Vec<u64>, Vec<u8>);

/// A record of a graph.
pub fn node(node: &Node, at: impl Fn(Address) -> u64) -> Record {
    match *node {
        Node::Moved(ref inner) => moved(inner, at),
        Node::Dependencies { adds, ref edges } => {
            let tail = edges.iter().take(16).flat_map(|&(from, data)| [u64::from(from), data]);
            let tail = tail.flat_map(u64::to_le_bytes).collect();
            with_tail(GraphDependencies { adds: adds.into(), reserved: 0 }, tail)
        }
        Node::Empty => plain(GraphEmpty {}),
        Node::Condition { condition, value, flags } => {
            plain(GraphCondition { condition: condition.into(), value: value.into(), flags: flags.into() })
        }
        Node::Conditional { condition, kind, bodies } => {
            plain(GraphConditional { condition: condition.into(), kind: kind.into(), bodies: bodies.into() })
        }
        Node::Body { index } => plain(GraphBody { index: index.into(), reserved: 0 }),
        Node::BodyEnd => plain(GraphBodyEnd {}),
    }
}

/// A command that may also be a graph's record.
pub fn moved(moved: &Moved, at: impl Fn(Address) -> u64) -> Record {
    match *moved {
        Moved::Copy { destination, source, bytes, stream } => plain(Copy {
            destination: at(destination),
            source: at(source),
            bytes: bytes.into(),
            stream: stream.into(),
            reserved: 0,
        }),
        Moved::Fill { address, pitch, width, height, element, stream } => plain(Fill {
            address: at(address),
            pitch,
            width: width.into(),
            height: height.into(),
            value: width,
            element_bytes: 1 << (element % 4),
            stream: stream.into(),
            reserved: 0,
        }),
        // A pointer now and then.
        Moved::Word { address, value, bytes, stream } => plain(WordWrite {
            address: at(address),
            value: value.map_or_else(&at, u64::from),
            stream: stream.into(),
            bytes: [4, 8, bytes.into()][usize::from(bytes % 3)],
        }),
        Moved::Record { event, stream, flags } => plain(EventRecord {
            event: event.into(),
            stream: stream.into(),
            flags: flags.into(),
            reserved: 0,
        }),
        Moved::Wait { stream, event, flags } => plain(StreamWaitEvent {
            stream: stream.into(),
            event: event.into(),
            flags: flags.into(),
            reserved: 0,
        }),
        Moved::Launch { kernel, stream, word, ref attributes } => {
            // A wild pointer in a kernel ends the GPU's context for all, as docs/design/limits.md says.
            let data = at(Address::Ground(u32::from(word) * 4));
            let (count, mut tail) = launch_attributes(attributes);
            tail.extend(data.to_le_bytes());
            with_tail(Launch { shape: launch_shape(kernel.into(), stream.into(), count, 8) }, tail)
        }
    }
}

fn plain<C: Command>(command: C) -> Record {
    with_tail(command, Vec::new())
}

fn with_tail<C: Command>(command: C, tail: Vec<u8>) -> Record {
    (C::OPCODE, command.words().to_vec(), tail)
}

/// At most four of them: how many, and their bytes.
pub fn launch_attributes(attributes: &[(u8, u64)]) -> (u32, Vec<u8>) {
    let mut tail = Vec::new();
    for &(id, value) in attributes.iter().take(4) {
        let attribute = LaunchAttribute { id: id.into(), reserved: 0, value: [value; 8] };
        tail.extend(bytemuck::bytes_of(&attribute));
    }
    ((tail.len() / size_of::<LaunchAttribute>()) as u32, tail)
}

/// One thread.
pub fn launch_shape(kernel: u32, stream: u32, attributes: u32, parameter_bytes: u32) -> LaunchShape {
    LaunchShape {
        kernel,
        stream,
        grid: [1; 3],
        block: [1; 3],
        shared_bytes: 0,
        attributes,
        parameter_bytes,
        reserved: 0,
    }
}
