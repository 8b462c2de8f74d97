//! The worker processes: of each GPU one for those that share it, its spare, and one for each strict function that is there; and its
//! compiler. They are kept running, asked, and heard.

pub(crate) mod compiler;
mod driver_files;
pub(crate) mod enclosures;
mod ending;
pub(crate) mod executor;
pub(crate) mod gpu;
pub(crate) mod gpu_time;
pub(crate) mod heartbeat;
pub(crate) mod inherited;
pub(crate) mod kind;
pub(crate) mod learned;
pub(crate) mod leaving;
pub(crate) mod ledger;
pub(crate) mod order;
mod outbox;
pub(crate) mod peers;
pub(crate) mod process;
pub(crate) mod served;
mod serving;
pub(crate) mod socket;
mod spare;
pub(crate) mod status;
mod supervisor;
pub(crate) mod usage;
