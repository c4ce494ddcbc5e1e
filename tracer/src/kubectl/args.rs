//! Arguments of `kubectl tracer`: kubectl's spelling, and all that `tracer` takes on a node.

use std::{path::PathBuf, time::Duration};

use clap::{Args as ClapArgs, Parser, Subcommand};

use crate::{
    cli::{
        args::{ListArgs, TraceArgs},
        generate::Generate,
    },
    lease,
};

/// Says which pod of the cluster opened which file and executed which program, from a container's first instruction on.
#[derive(Debug, Parser)]
#[command(name = "kubectl-tracer", bin_name = "kubectl tracer", version, propagate_version = true)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show events of all nodes as they happen, each with its pod
    ///
    /// Without -n and -A those of the namespace that the kubeconfig's context names.
    Trace(Box<OnNodes<TraceArgs>>),
    /// List the containers of all nodes, each with its pod
    ///
    /// Without -n and -A those of the namespace that the kubeconfig's context names.
    ListContainers(Box<OnNodes<ListArgs>>),
    /// Tell what each node's kernel allows, what is missing, and how to get it
    Doctor(NodesArgs),
    #[command(flatten)]
    Generate(Generate),
}

/// What all commands take.
#[derive(Debug, ClapArgs)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) cluster: ClusterArgs,
    /// Log more to standard error; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Log errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
}

/// Which cluster, and as whom.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Cluster")]
pub(super) struct ClusterArgs {
    /// The kubeconfig, instead of $KUBECONFIG or ~/.kube/config; without any of them, in a pod, its ServiceAccount
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context, instead of the current one
    #[arg(long, value_name = "NAME", global = true)]
    pub(super) context: Option<String>,
    /// The kubeconfig's cluster, instead of the context's
    #[arg(long, value_name = "NAME", global = true)]
    pub(super) cluster: Option<String>,
    /// The kubeconfig's user, instead of the context's
    #[arg(long, value_name = "NAME", global = true)]
    pub(super) user: Option<String>,
    /// The user to impersonate
    #[arg(long = "as", value_name = "USER", global = true)]
    pub(super) impersonate: Option<String>,
    /// A group to impersonate; repeats
    #[arg(long = "as-group", value_name = "GROUP", global = true)]
    pub(super) impersonate_group: Vec<String>,
    /// The namespace that tracer's own pods are in
    #[arg(long, value_name = "NS", global = true, default_value = "tracer")]
    pub(super) tracer_namespace: String,
}

/// A command of `tracer`, and where to run it.
#[derive(Debug, ClapArgs)]
pub(super) struct OnNodes<A: ClapArgs> {
    #[command(flatten)]
    pub(super) args: A,
    #[command(flatten)]
    pub(super) nodes: NodesArgs,
}

/// Which nodes.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Nodes")]
pub(super) struct NodesArgs {
    /// Only these nodes; repeats or takes commas
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    pub(super) node: Vec<String>,
    /// How long a node's tracer goes on by itself when nothing is heard from here
    #[arg(long, value_name = "TIME", hide = true, default_value = "10s", value_parser = lease::parse_term)]
    pub(super) lease: Duration,
}

impl NodesArgs {
    /// Whether this node is asked for.
    pub(super) fn select(&self, node: &str) -> bool {
        self.node.is_empty() || self.node.iter().any(|wanted| wanted == node)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::generate::tests::check;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn everything_is_completed_and_has_a_page() {
        check(
            &Args::command(),
            &["trace", "list-containers", "doctor", "all-namespaces", "kubeconfig"],
            &[
                "kubectl-tracer-completions.1",
                "kubectl-tracer-doctor.1",
                "kubectl-tracer-list-containers.1",
                "kubectl-tracer-trace.1",
                "kubectl-tracer.1",
            ],
        );
    }

    #[test]
    fn nodes_repeat_or_take_commas() {
        let args = Args::try_parse_from(["kubectl-tracer", "doctor", "--node", "a,b", "--node=c"]).unwrap();
        let Command::Doctor(nodes) = args.command else { panic!() };
        assert!(["a", "b", "c"].iter().all(|node| nodes.select(node)) && !nodes.select("d"));
    }
}
