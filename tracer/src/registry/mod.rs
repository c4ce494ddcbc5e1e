//! The containers that are known: from a key in an event to its container, and whether it is selected.
//!
//! Each part has one responsibility: `slots` has the kernel's side, `life` and `keys` the lives of container keys,
//! `attribution`, `labels` and `quotas` what is known and decided. `containers` has the lock around them.

mod attribution;
mod containers;
mod keys;
mod labels;
mod life;
mod listing;
mod quotas;
mod slots;
mod state;
mod wait;

pub(crate) use attribution::{Attribution, ContainerName, Lookup};
pub(crate) use containers::{MissedRecords, Registry};
pub(crate) use life::FirstProcess;
pub(crate) use listing::{ListedContainer, StartedContainer};
pub(crate) use wait::Wait;
