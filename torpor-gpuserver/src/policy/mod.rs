//! Policies: pure functions from what is known to a decision. No clock, no locks, no driver: the server, the tests and
//! simulations call the same code.
//!
//! What happens are [events](event); they make the [picture](view) of the node, and the [decider] has both that and the policies.

pub mod apart;
pub mod decider;
pub mod due;
pub mod event;
pub mod eviction;
pub mod gangs;
pub mod lean;
pub mod placement;
pub mod reuse;
pub mod sharing;
pub mod spreading;
pub mod topology;
pub mod view;
