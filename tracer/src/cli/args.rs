//! Arguments as they are written. kubectl's spelling wins where it has one.

use std::{path::PathBuf, time::Duration};

use bytesize::ByteSize;
use clap::{
    Args as ClapArgs, Parser, Subcommand,
    builder::{PossibleValue, PossibleValuesParser},
};

use tracer_common::kinds::KINDS;

use crate::{bpf::Hook, cli::generate::Generate, run::lease};

/// Says which pod opened which file and executed which program, from a container's first instruction on.
#[derive(Debug, Parser)]
#[command(name = "tracer", version, propagate_version = true)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, ClapArgs)]
pub(crate) struct LogArgs {
    /// Log more to standard error; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Log errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

impl LogArgs {
    /// Whether it is more than usual.
    pub(crate) const fn is_verbose(self) -> bool {
        self.verbose > 0
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show events as they happen, each with its pod
    Trace(Box<OnNode<TraceArgs>>),
    /// List the containers of this node, each with its pod
    ListContainers(Box<OnNode<ListArgs>>),
    /// Tell what this kernel and this user allow, what is missing, and how to get it
    Doctor,
    /// Do nothing but be there, so that tracer can be run in this container
    Agent(LeaseArgs),
    #[command(flatten)]
    Generate(Generate),
}

/// A command with what it takes on a node besides.
#[derive(Debug, ClapArgs)]
pub(super) struct OnNode<A: ClapArgs> {
    #[command(flatten)]
    pub(super) args: A,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

/// What is told to one that runs on a node, by whoever runs it there.
#[derive(Debug, Default, ClapArgs)]
#[command(next_help_heading = "Output")]
pub(crate) struct NodeArgs {
    /// The node's name, instead of the host name
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) lease: LeaseArgs,
}

/// For how long whoever started it may say nothing.
#[derive(Clone, Copy, Debug, Default, ClapArgs)]
pub(crate) struct LeaseArgs {
    /// Stop when standard input is closed, has a Ctrl-D, or is silent for this long: for who runs tracer from afar,
    /// and may vanish
    #[arg(long, value_name = "TIME", value_parser = lease::parse_term)]
    pub(crate) lease: Option<Duration>,
}

/// The kinds of events.
fn kinds() -> PossibleValuesParser {
    PossibleValuesParser::new(KINDS.iter().map(|kind| PossibleValue::new(kind.name).help(kind.help)))
}

/// The best hook that this kernel has.
pub(crate) const HOOK_AUTO: &str = "auto";

fn hooks() -> PossibleValuesParser {
    PossibleValuesParser::new([HOOK_AUTO].into_iter().chain(Hook::ALL.map(Hook::name)))
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TraceArgs {
    /// Kinds of events to trace, separated by commas
    #[arg(required = true, value_delimiter = ',', num_args = 1, value_parser = kinds())]
    pub(crate) kind: Vec<String>,
    /// Show host processes as well
    #[arg(long)]
    pub(crate) host: bool,
    /// Show failed calls only
    #[arg(long)]
    pub(crate) failed: bool,
    /// Only these processes, by id as tracer sees it
    #[arg(long, value_name = "N")]
    pub(crate) pid: Vec<String>,
    /// Only these users, by number
    #[arg(long, value_name = "N")]
    pub(crate) uid: Vec<String>,
    /// Only these commands, by comm: up to 15 characters
    #[arg(long, value_name = "NAME")]
    pub(crate) comm: Vec<String>,
    /// Stop after this many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_events: Option<u64>,
    /// Size of the kernel's buffer for events, rounded up to a power of two
    #[arg(long, value_name = "SIZE", default_value = "8MiB")]
    pub(crate) buffer_size: ByteSize,
    /// Where opens are hooked: all ways tell the same, but fexit costs other system calls nothing
    #[arg(long, value_name = "HOOK", default_value = HOOK_AUTO, value_parser = hooks())]
    pub(crate) hook: String,
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) runtimes: RuntimeArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ListArgs {
    /// Go on and show what changes
    #[arg(short, long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) runtimes: RuntimeArgs,
}

/// How it is shown, and for how long.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// columns, wide, json, jsonpretty, yaml, kyaml, or custom-columns=A,B
    #[arg(short, long, value_name = "FORMAT", default_value = "columns")]
    pub(crate) output: String,
    /// No line with the columns' names
    #[arg(long)]
    pub(crate) no_headers: bool,
    /// Stop after this time, for instance 10s or 1m30s
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Option<Duration>,
}

/// Where containers come from.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Runtimes and engines")]
pub(crate) struct RuntimeArgs {
    /// One more file name by which a container runtime is known
    #[arg(long, value_name = "NAME")]
    pub(crate) runtime_name: Vec<String>,
    /// One more directory in which a runtime keeps the state of containers (its --root)
    #[arg(long, value_name = "DIR")]
    pub(crate) runtime_root: Vec<PathBuf>,
    /// The engine's CRI socket, instead of the usual ones; none to ask no engine
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) runtime_endpoint: Option<String>,
    /// Hear the engine's events as well. An engine may wait for who hears them: stopped by Ctrl-Z, tracer would hold
    /// up the node's pods
    #[arg(long)]
    pub(crate) runtime_events: bool,
    /// Believe the runtimes of users, too: they may name pods
    #[arg(long)]
    pub(crate) trust_rootless: bool,
}

/// Which containers. Values repeat or are separated by commas; `!x` leaves x out. Without any of these: all
/// containers of the node.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Containers (values repeat or take commas; !x leaves x out)")]
pub(crate) struct SelectionArgs {
    /// Only pods of these namespaces
    #[arg(short, long, value_name = "NS")]
    pub(crate) namespace: Vec<String>,
    /// Pods of all namespaces, whatever -n says
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Only these pods
    #[arg(short, long, value_name = "POD")]
    pub(crate) pod: Vec<String>,
    /// Only these containers, by their name in the pod
    #[arg(short, long, value_name = "CONTAINER")]
    pub(crate) container: Vec<String>,
    /// Only pods with these labels: k=v, k!=v, 'k in (a,b)', 'k notin (a,b)', k, !k; several with commas
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_unit_calls_it_as_it_is() {
        let unit = include_str!("../../../deploy/tracer.service");
        let words = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/")).unwrap();
        let args = Args::try_parse_from(words.split(' ')).unwrap();
        assert!(matches!(args.command, Command::Trace(_)), "{words}");
        // They make openat2(2) fail, or hide what is read in /proc.
        for setting in [
            "DynamicUser=",
            "RestrictSUIDSGID=",
            "PrivateNetwork=",
            "PrivatePIDs=",
            "PrivateUsers=",
            "ProcSubset=",
        ] {
            assert!(!unit.lines().any(|line| line.starts_with(setting)), "{setting}");
        }
        // What pods do must not push the node's own logs out of its journal.
        assert!(unit.contains("\nLogNamespace=tracer\n") && unit.contains("journalctl --namespace=tracer"));
        // Neither is cured by starting once more.
        assert!(unit.contains(&format!(
            "RestartPreventExitStatus={} {}\n",
            crate::error::USAGE,
            crate::error::UNSUPPORTED
        )));
    }
}
