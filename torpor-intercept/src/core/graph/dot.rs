//! A graph as text that Graphviz draws (`cuGraphDebugDotPrint`).

use super::work::Work;
use super::{Graph, NodeType};
use crate::core::kernel::Kernel;
use std::fmt::Write as _;
use torpor_proto::command::{Copy, CopyStrided, Fill, Launch};

impl Graph {
    /// The text: a box for each node, an arrow for each dependency, graphs in nodes behind the one that they are in.
    #[must_use]
    pub fn dot(&'static self) -> String {
        let mut text = String::from("digraph dot {\n");
        self.write_dot(&mut text);
        text.push_str("}\n");
        text
    }

    fn write_dot(&'static self, text: &mut String) {
        let (nodes, edges, id) = self.with(|state| {
            let nodes: Vec<_> = state.dag.iter().map(|(id, entry)| (id, entry.work.clone())).collect();
            (nodes, state.dag.edges().collect::<Vec<_>>(), self.id())
        });
        // Writing to a string cannot fail.
        _ = writeln!(text, "subgraph cluster_{id} {{\nlabel=\"graph_{id}\" graph[style=\"dashed\"];");
        for (node, work) in &nodes {
            _ = writeln!(
                text,
                "\"graph_{id}_node_{node}\"[shape=\"record\" label=\"{node}\\n{}\"];",
                label(work)
            );
        }
        for (edge, to) in edges {
            _ = writeln!(text, "\"graph_{id}_node_{}\" -> \"graph_{id}_node_{to}\";", edge.from);
        }
        text.push_str("}\n");
        for (_, work) in &nodes {
            match work {
                Work::Child(graph) => graph.write_dot(text),
                Work::Conditional(conditional) => {
                    conditional.bodies.iter().for_each(|graph| graph.write_dot(text));
                }
                _ => {}
            }
        }
    }
}

fn label(work: &Work) -> String {
    if let Some((launch, _)) = work.as_command::<Launch>() {
        let name =
            Kernel::numbered(launch.shape.kernel).map(|kernel| kernel.name.to_string_lossy().into_owned());
        let (grid, block) = (launch.shape.grid, launch.shape.block);
        return format!("{}\\n{grid:?} {block:?}", name.unwrap_or_default());
    }
    if let Some((copy, _)) = work.as_command::<Copy>() {
        return format!("MEMCPY {:#x} to {:#x}, {} bytes", copy.source, copy.destination, copy.bytes);
    }
    if let Some((copy, _)) = work.as_command::<CopyStrided>() {
        return format!(
            "MEMCPY {:#x} to {:#x}, {} bytes wide",
            copy.source, copy.destination, copy.width_bytes
        );
    }
    if let Some((fill, _)) = work.as_command::<Fill>() {
        return format!("MEMSET {:#x}, {} x {} of {:#x}", fill.address, fill.width, fill.height, fill.value);
    }
    let name = match work.node_type() {
        NodeType::Kernel | NodeType::Copy | NodeType::Fill | NodeType::Empty => "EMPTY",
        NodeType::Host => "HOST",
        NodeType::Graph => "GRAPH",
        NodeType::WaitEvent => "EVENT_WAIT",
        NodeType::RecordEvent => "EVENT_RECORD",
        NodeType::Allocate => "MEM_ALLOC",
        NodeType::Free => "MEM_FREE",
        NodeType::Conditional => "CONDITIONAL",
    };
    name.to_owned()
}
