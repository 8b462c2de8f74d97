//! What a client's numbers stand for, and what must outlive its work on the GPU.

pub(crate) mod array;
pub(crate) mod array_layout;
pub(crate) mod array_shape;
pub(crate) mod event;
pub(crate) mod graph;
pub(crate) mod image;
pub(crate) mod image_upload;
pub(crate) mod kernel;
pub(crate) mod kernel_settings;
pub(crate) mod pending;
pub(crate) mod table;
pub(crate) mod variables;
