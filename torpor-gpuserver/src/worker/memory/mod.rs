//! A client's memory as bookkeeping: its addresses, what lies there, and what has arrived of it.

pub(crate) mod address_space;
pub(crate) mod arrivals;
pub(crate) mod host_range;
pub(crate) mod segment;
mod staging;
pub(crate) mod units;
pub(crate) mod variable_room;
