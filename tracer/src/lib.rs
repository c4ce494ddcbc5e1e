//! `tracer`: reports which pod opened which file, executed which program.
//!
//! An event's path through the modules: an eBPF program writes a record into a ring buffer (`bpf`); `pipeline` reads it,
//! attributes it to its container (`registry`), which `discovery` has found through the container runtime's command line,
//! applies the selection, and renders it (`kinds`, `output`). `docs/project/architecture.md` explains why.

mod bpf;
pub mod cli;
mod cri;
mod discovery;
mod error;
mod frames;
mod kinds;
#[cfg(feature = "kubectl")]
pub mod kubectl;
mod model;
mod output;
mod pipeline;
mod registry;
mod run;
mod sanitize;
mod sys;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;
mod text_cache;
