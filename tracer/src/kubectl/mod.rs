//! `kubectl tracer`: runs `tracer` on every node of a cluster and merges the output.
//!
//! Agents (`agents`) are pods, one per node, in which `tracer` can be run. A task for each node (`node`) runs it there
//! through the API server (`exec`), keeps its lease, and decodes its output into batches (`batch`). One thread (`writer`)
//! renders the batches of all nodes with the code that `tracer` uses on a node. `session` is one run of the command, from
//! the first list of agents to the summary.

mod account;
mod agents;
mod args;
mod batch;
mod cluster;
mod complete;
mod confinement;
mod deploy;
mod doctor;
mod ephemeral;
mod exec;
mod image;
mod lines;
mod manifests;
mod node;
mod node_command;
mod nodes;
mod restriction;
mod session;
mod text;
mod warnings;
mod workload;
mod writer;

use std::process::ExitCode;

use crate::{
    cli,
    sys::{stderr, thread::local_runtime},
};
use args::{Args, Command};

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(words) = complete::requested(std::env::args_os()) {
        return complete::run(&words);
    }
    let args = cli::parse::<Args>();
    stderr::start();
    cli::start_log(args.common.log.log());
    cli::finish(run(args))
}

/// The command line.
pub(crate) fn definition() -> clap::Command {
    cli::help::definition::<Args>()
}

fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { command, common } = args;
    let runtime = local_runtime()?;
    let result = runtime.block_on(async {
        match command {
            Command::Trace(trace) => session::trace(trace.args, &trace.nodes, &common).await,
            Command::ListContainers(list) => session::list(list.args, &list.nodes, &common).await,
            Command::Doctor(nodes) => doctor::run(&nodes, &common).await,
            Command::Deploy(args) => deploy::deploy(&args, &common).await,
            Command::Undeploy(args) => deploy::undeploy(&args, &common).await,
            Command::Generate(generate) => generate.run(definition()),
        }
    });
    // Pending requests must not delay the exit.
    runtime.shutdown_background();
    result
}
