//! The worker processes: one per GPU, kept running, asked, and heard.

pub(crate) mod gpu;
pub(crate) mod gpu_time;
pub(crate) mod heartbeat;
pub(crate) mod learned;
pub(crate) mod order;
pub(crate) mod outstanding;
pub(crate) mod process;
pub(crate) mod socket;
pub(crate) mod status;
mod supervisor;
pub(crate) mod usage;
