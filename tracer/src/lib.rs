//! `tracer`: says which pod opened which file, executed which program.
//!
//! The way of an event: `tracer-ebpf` writes a record into a ring buffer ([`bpf`]), it is decoded ([`trace`]),
//! attributed to its container ([`containers`]), which was learnt from the container runtime's command line
//! ([`runtime`]), selected, and rendered ([`render`]). `docs/architecture.md` tells why it is so.

pub mod agent;
pub mod bpf;
pub mod cli;
pub mod clock;
pub mod containers;
pub mod cri;
pub mod engines;
pub mod error;
pub mod host;
mod json;
#[cfg(feature = "kubectl")]
pub mod kubectl;
pub mod lease;
pub mod list;
pub mod log_limit;
pub mod observe;
pub mod privileges;
pub mod read;
pub mod render;
pub mod runtime;
pub mod stderr;
pub mod stdout;
pub mod trace;
pub mod wire;
