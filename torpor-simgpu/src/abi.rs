//! The C side of the interface.

mod argument;
mod structures;

pub use argument::{In, Out, Text};
pub use structures::{
    Array3dDescriptor, ArrayDescriptor, DevResource, LaunchAttribute, LaunchConfig, MemAccessDesc,
    MemAllocationProp, MemLocation, Memcpy2d, Memcpy3d, NodeParams, ResourceDesc, ResourceViewDesc,
    TensorMap, TextureDesc, Uuid,
};
