//! Policies: pure functions from what is known to a decision. No clock, no locks, no driver: the server, the tests and
//! simulations call the same code.

pub mod eviction;
pub mod placement;
