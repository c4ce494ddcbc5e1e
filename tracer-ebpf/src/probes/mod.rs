//! The traced kinds, one module each.

pub mod exec;
pub mod open;
mod seccomp;
pub mod uring;
