//! Functions as devices of containers: what a container is given, and the files that tell its runtime.
//!
//! `torpor cdi` describes the functions of a node that way, `torpor-kube` those of pods; the router gives the same to containers that
//! it starts.

mod edits;
mod file;
mod spec;

pub use edits::{Edits, Installation, Mount};
pub use file::{copy, replace};
pub use spec::{Kind, Spec, is_device_name};
