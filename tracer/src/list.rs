//! `tracer list-containers`: the containers of the node, and what becomes of them.

use std::time::Duration;

use anyhow::bail;

use crate::{containers::Selection, render::ContainerRenderer};

/// What to list, and how to show it.
#[derive(Debug)]
pub struct Config {
    /// The containers that are asked for.
    pub selection: Selection,
    /// How they are shown.
    pub renderer: ContainerRenderer,
    /// The node's name.
    pub node: String,
    /// Whether to go on and show what changes.
    pub watch: bool,
    /// When to stop by itself.
    pub timeout: Option<Duration>,
    /// File names of container runtimes.
    pub runtimes: Vec<String>,
    /// The engine's CRI socket, where it is not one of the usual ones.
    pub runtime_endpoint: Option<String>,
    /// Whether runtimes of users may name pods.
    pub trust_rootless: bool,
}

/// Lists the containers; with `watch`, until a signal, the timeout, or the end of who reads.
pub fn run(_config: Config) -> anyhow::Result<()> {
    bail!("list-containers is not wired yet")
}
