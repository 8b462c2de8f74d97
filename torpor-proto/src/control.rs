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
    pub mod keeper {
        tonic::include_proto!("torpor.keeper");
    }
}

/// What form a [`migration::Checkpoint`] has, as its declaration says: a worker reads none of another form, which would be one of
/// another release.
pub const CHECKPOINT_FORM: u64 = hash(BASIS, include_bytes!("../proto/migration.proto"));

/// What form that has which a server leaves with its [keeper], and what it says to workers: the next server goes on from none of
/// another form.
pub const KEEPER_FORM: u64 =
    hash(hash(BASIS, include_bytes!("../proto/keeper.proto")), include_bytes!("../proto/worker.proto"));

const BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, going on from another hash.
#[must_use]
pub const fn hash(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

pub use generated::admin;
pub use generated::control as client;
pub use generated::event;
pub use generated::keeper;
pub use generated::migration;
pub use generated::worker;
pub use prost::Message;
