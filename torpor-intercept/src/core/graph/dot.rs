//! A graph as text that Graphviz draws (`cuGraphDebugDotPrint`).

use super::work::Work;
use super::{Graph, NodeType};
use crate::core::kernel::Kernel;
use std::fmt::Write as _;
use torpor_proto::command::{Copy, CopyStrided, Fill, Launch};

/// `CU_GRAPH_DEBUG_DOT_FLAGS_VERBOSE`, `_KERNEL_NODE_PARAMS`
const VERBOSE: u32 = 1;
const KERNEL_PARAMETERS: u32 = 4;

impl Graph {
    /// The text: a box for each node, an arrow for each dependency, graphs in nodes behind the one that they are in. The `flags`
    /// (`CUgraphDebugDot_flags`) say whether kernels tell all there is to their launch; of other nodes the same is told always.
    #[must_use]
    pub fn dot(&'static self, flags: u32) -> String {
        let mut text = String::from("digraph dot {\n");
        self.write_dot(&mut text, flags & (VERBOSE | KERNEL_PARAMETERS) != 0);
        text.push_str("}\n");
        text
    }

    fn write_dot(&'static self, text: &mut String, is_verbose: bool) {
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
                label(work, is_verbose)
            );
        }
        for (edge, to) in edges {
            _ = writeln!(text, "\"graph_{id}_node_{}\" -> \"graph_{id}_node_{to}\";", edge.from);
        }
        text.push_str("}\n");
        for (_, work) in &nodes {
            match work {
                Work::Child(graph) => graph.write_dot(text, is_verbose),
                Work::Conditional(conditional) => {
                    conditional.bodies.iter().for_each(|graph| graph.write_dot(text, is_verbose));
                }
                _ => {}
            }
        }
    }
}

fn label(work: &Work, is_verbose: bool) -> String {
    if let Some((launch, _)) = work.as_command::<Launch>() {
        let name =
            Kernel::numbered(launch.shape.kernel).map(|kernel| kernel.name.to_string_lossy().into_owned());
        let (shape, name) = (&launch.shape, name.unwrap_or_default());
        let mut label = format!("{name}\\n{:?} {:?}", shape.grid, shape.block);
        if is_verbose {
            let (shared, parameters, attributes) =
                (shape.shared_bytes, shape.parameter_bytes, shape.attributes);
            _ = write!(
                label,
                "\\n{shared} bytes of shared memory, {parameters} of parameters, {attributes} attributes"
            );
        }
        return label;
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
        NodeType::Words => "BATCH_MEM_OP",
        NodeType::Graph => "GRAPH",
        NodeType::WaitEvent => "EVENT_WAIT",
        NodeType::RecordEvent => "EVENT_RECORD",
        NodeType::Allocate => "MEM_ALLOC",
        NodeType::Free => "MEM_FREE",
        NodeType::Conditional => "CONDITIONAL",
    };
    name.to_owned()
}
