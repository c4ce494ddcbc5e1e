//! `kubectl tracer`: `tracer` on every node of a cluster, what they print merged.
//!
//! Agents (`agents`) are pods, one a node, in which `tracer` can be executed. A task for each node (`node`) executes
//! it there through the API server (`exec`), keeps its lease, and reads what it prints (`reading`); one thread
//! (`writer`) shows what comes of all of them, by the code that shows it on a node. `session` is one run, from the
//! first list of agents to the closing line.

mod account;
mod agents;
mod args;
mod cluster;
mod complete;
mod confinement;
mod deploy;
mod doctor;
mod ephemeral;
mod exec;
mod lines;
mod manifests;
mod node;
mod nodes;
mod plain;
mod reading;
mod remote;
mod restriction;
mod session;
mod warnings;
mod writer;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

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
    let args = Args::parse();
    stderr::start();
    cli::start_log(args.common.log.log());
    cli::finish(run(args))
}

fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { command, common } = args;
    let runtime = local_runtime()?;
    let result = runtime.block_on(async {
        match command {
            Command::Trace(trace) => session::trace(&trace.args, &trace.nodes, &common).await,
            Command::ListContainers(list) => session::list(&list.args, &list.nodes, &common).await,
            Command::Doctor(nodes) => doctor::run(&nodes, &common).await,
            Command::Deploy(args) => deploy::deploy(&args, &common).await,
            Command::Undeploy(args) => deploy::undeploy(&args, &common).await,
            Command::Generate(generate) => generate.run(Args::command()),
        }
    });
    // What still waits for an answer must not keep the process.
    runtime.shutdown_background();
    result
}
