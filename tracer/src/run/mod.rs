//! What a command does while it runs: load and attach the programs, trace or list, stop, and account for every event.

pub(crate) mod agent;
pub(crate) mod doctor;
pub(crate) mod lease;
pub(crate) mod limits;
pub(crate) mod list;
mod list_output;
pub(crate) mod observer;
pub(crate) mod reporter;
pub(crate) mod trace;
