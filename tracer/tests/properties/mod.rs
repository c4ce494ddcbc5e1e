//! What holds whatever comes in: `tests/replay.rs` checks it with inputs that are known, the targets in `fuzz/` with what
//! libFuzzer makes of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]
#![allow(
    clippy::missing_panics_doc,
    missing_docs,
    unreachable_pub,
    reason = "tests, shared by several crates"
)]

pub mod annotations;
pub mod command_line;
pub mod config_json;
pub mod cri_info;
pub mod events;
mod fixtures;
pub mod lifecycle;
pub mod node_lines;
#[path = "../records/mod.rs"]
mod records;
mod script;
pub mod selectors;
mod shown;

/// Something that reads what others have written.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// As `cargo xtask fuzz` calls it.
    pub name: &'static str,
    /// Panics where something does not hold that should.
    pub check: fn(&[u8]),
    /// What engines and programs have really written, and what once led to a finding.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

pub const TARGETS: [Target; 8] = [
    annotations::TARGET,
    command_line::TARGET,
    config_json::TARGET,
    cri_info::TARGET,
    events::TARGET,
    lifecycle::TARGET,
    node_lines::TARGET,
    selectors::TARGET,
];
