//! The control messages (protobuf), generated from `proto/*.proto`.

#[expect(
    missing_docs,
    clippy::module_inception,
    clippy::pedantic,
    reason = "generated; the documentation is in the .proto files"
)]
mod generated {
    pub mod control {
        tonic::include_proto!("torpor.control");
    }
    pub mod event {
        tonic::include_proto!("torpor.event");
    }
    pub mod worker {
        tonic::include_proto!("torpor.worker");
    }
    pub mod admin {
        tonic::include_proto!("torpor.admin");
    }
    pub mod migration {
        tonic::include_proto!("torpor.migration");
    }
}

/// What form a [`migration::Checkpoint`] has, as its declaration says: a worker reads none of another form, which would be one of
/// another release.
pub const CHECKPOINT_FORM: u64 = hash(include_bytes!("../proto/migration.proto"));

/// FNV-1a.
const fn hash(bytes: &[u8]) -> u64 {
    let (mut hash, mut at) = (0xcbf2_9ce4_8422_2325_u64, 0);
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

pub use generated::admin;
pub use generated::control as client;
pub use generated::event;
pub use generated::migration;
pub use generated::worker;
pub use prost::Message;
