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

pub use generated::admin;
pub use generated::control as client;
pub use generated::event;
pub use generated::migration;
pub use generated::worker;
pub use prost::Message;
