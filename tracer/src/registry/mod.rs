//! The containers that are known: from a key in an event to a name, and whether it is selected.

mod containers;
mod shares;
mod state;

pub(crate) use containers::{Attribution, ContainerName, First, Gaps, Known, Listed, Lookup, Registry};
