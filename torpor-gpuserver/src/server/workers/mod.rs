//! The worker processes: one per GPU and a spare, kept running, asked, and heard.

pub(crate) mod gpu;
pub(crate) mod gpu_time;
pub(crate) mod heartbeat;
pub(crate) mod learned;
mod leaving;
pub(crate) mod order;
mod outbox;
pub(crate) mod outstanding;
pub(crate) mod peers;
pub(crate) mod process;
mod serving;
pub(crate) mod socket;
mod spare;
pub(crate) mod status;
mod supervisor;
pub(crate) mod usage;
