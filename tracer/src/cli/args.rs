//! Command line arguments. Options that kubectl has too are spelled as there.

use std::{path::PathBuf, time::Duration};

use bytesize::ByteSize;
use clap::{
    Args as ClapArgs, ColorChoice, Parser, Subcommand,
    builder::{PossibleValue, PossibleValuesParser},
};

use tracer_common::kinds::KINDS;

use crate::{
    bpf::Hook,
    cli::{
        generate::Generate,
        help::{ADVANCED, GLOBAL, LIMITS, OUTPUT, SELECTION, examples},
    },
    output::COLUMNS,
    run::lease,
};

/// Trace which pod opens which file and executes which program, from a container's first instruction on.
#[derive(Debug, Parser)]
#[command(name = "tracer", version, propagate_version = true, before_help = examples(&EXAMPLES))]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
    #[command(flatten)]
    pub(super) log: LogArgs,
    #[command(flatten)]
    pub(super) about: AboutArgs,
}

/// Examples of the program and of its commands: what they show, and the command line.
const EXAMPLES: [(&str, &str); 4] = [
    ("Files that the pods of a namespace open", "sudo tracer trace open -n kube-system"),
    ("Programs that all containers execute, and processes that fail", "sudo tracer trace exec,exit -A"),
    ("The containers of this node, and how they change", "sudo tracer list-containers -w"),
    ("Whether this node supports tracing", "sudo tracer doctor"),
];
const TRACE_EXAMPLES: [(&str, &str); 4] = [
    ("Files that the pods of a namespace open", "sudo tracer trace open -n kube-system"),
    (
        "What goes wrong in a pod: failed opens and executions, exit codes, signals",
        "sudo tracer trace open,exec,exit -p web-0 --failed",
    ),
    (
        "Programs that a deployment's pods execute, for ten seconds, as JSON",
        "sudo tracer trace exec -p 'web-*' --timeout 10s -o json",
    ),
    ("All columns and JSON fields of a kind", "tracer trace open -o help"),
];
const LIST_EXAMPLES: [(&str, &str); 4] = [
    ("The containers of this node", "sudo tracer list-containers"),
    ("Those of a namespace, and how they change", "sudo tracer list-containers -n kube-system -w"),
    ("Containers that fail, with exit code or signal", "sudo tracer list-containers -w --failed"),
    ("Pods and images only", "sudo tracer list-containers -o custom-columns=pod,container,image"),
];
const DOCTOR_EXAMPLES: [(&str, &str); 1] = [("Check this node", "sudo tracer doctor")];
const AGENT_EXAMPLES: [(&str, &str); 1] = [("The first process of an agent's container", "tracer agent")];

/// Help and version.
#[derive(Clone, Copy, Debug, ClapArgs)]
#[command(next_help_heading = GLOBAL)]
pub(crate) struct AboutArgs {
    /// Print help; -h leaves out advanced options
    #[arg(short, long, global = true, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Print the version
    #[arg(short = 'V', long, global = true, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

/// How much to log.
#[derive(Clone, Copy, Debug, ClapArgs)]
#[command(next_help_heading = GLOBAL)]
pub(crate) struct LogArgs {
    /// Log more to stderr; given twice, log debug messages too; three times, those of libraries
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Log errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

impl LogArgs {
    /// Whether debug messages are logged.
    pub(crate) const fn is_debug(self) -> bool {
        self.verbose > 1
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Trace events, each with its pod
    #[command(before_help = examples(&TRACE_EXAMPLES))]
    Trace(Box<OnNode<TraceArgs>>),
    /// List the containers of this node, each with its pod
    #[command(before_help = examples(&LIST_EXAMPLES))]
    ListContainers(Box<OnNode<ListArgs>>),
    /// Check whether this node supports tracing, and how to fix what is missing
    #[command(before_help = examples(&DOCTOR_EXAMPLES))]
    Doctor,
    /// Stay idle; `kubectl tracer` runs commands in this pod
    #[command(before_help = examples(&AGENT_EXAMPLES))]
    Agent(LeaseArgs),
    #[command(flatten)]
    Generate(Generate),
}

/// A command with the options that it has on a node only.
#[derive(Debug, ClapArgs)]
pub(super) struct OnNode<A: ClapArgs> {
    #[command(flatten)]
    pub(super) args: A,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

/// Options that a client sets on a node.
#[derive(Debug, Default, ClapArgs)]
#[command(next_help_heading = ADVANCED)]
pub(crate) struct NodeArgs {
    /// Name of the node [default: the host name]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) lease: LeaseArgs,
}

/// How long the client may be silent.
#[derive(Clone, Copy, Debug, Default, ClapArgs)]
pub(crate) struct LeaseArgs {
    /// Exit when stdin closes or stays silent for TIME (used by remote clients)
    #[arg(long, value_name = "TIME", value_parser = lease::parse_term, hide_short_help = true)]
    pub(crate) lease: Option<Duration>,
}

/// The kinds of events.
pub(super) fn kinds() -> PossibleValuesParser {
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
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Show the local time of each event in a column TIME
    #[arg(long, help_heading = OUTPUT)]
    pub(crate) timestamps: bool,
    /// Exit after N events
    #[arg(long, value_name = "N", help_heading = LIMITS, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_events: Option<u64>,
    /// Size of the ring buffer for events, rounded up to a power of two
    #[arg(long, help_heading = ADVANCED, hide_short_help = true, value_name = "SIZE", default_value = "8MiB")]
    pub(crate) buffer_size: ByteSize,
    /// Attach point for opens; fexit adds no overhead to other system calls
    #[arg(long, help_heading = ADVANCED, hide_short_help = true, value_name = "HOOK", default_value = HOOK_AUTO,
        value_parser = hooks())]
    pub(crate) hook: String,
    #[command(flatten)]
    pub(crate) runtimes: RuntimeArgs,
}

/// Processes to select, beside containers.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = SELECTION)]
pub(crate) struct FilterArgs {
    /// Trace host processes too
    #[arg(long)]
    pub(crate) host: bool,
    /// Trace failures only
    #[arg(long)]
    pub(crate) failed: bool,
    /// Process ids to trace, as tracer sees them
    #[arg(long, value_name = "N")]
    pub(crate) pid: Vec<String>,
    /// User ids to trace
    #[arg(long, value_name = "N")]
    pub(crate) uid: Vec<String>,
    /// Names of threads to trace (comm): up to 15 characters
    #[arg(long, value_name = "NAME")]
    pub(crate) comm: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    /// With -w, show only containers whose first process has failed: exit code other than 0, or killed by a signal
    #[arg(long, help_heading = SELECTION, requires = "watch")]
    pub(crate) failed: bool,
    /// Keep watching, and show changes
    #[arg(short, long, help_heading = OUTPUT)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) runtimes: RuntimeArgs,
}

/// Output format, and how long to run.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = OUTPUT)]
pub(crate) struct OutputArgs {
    /// Output format: columns, wide, json, jsonpretty, yaml, kyaml, or custom-columns=A,B; help lists columns and fields
    #[arg(short, long, value_name = "FORMAT", default_value = COLUMNS)]
    pub(crate) output: String,
    /// Omit the header line
    #[arg(long)]
    pub(crate) no_headers: bool,
    /// When to use colors; NO_COLOR=1 turns them off, too
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorChoice,
    /// Exit after TIME, for example 10s or 1m30s
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, help_heading = LIMITS)]
    pub(crate) timeout: Option<Duration>,
}

/// Container runtimes and engines.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = ADVANCED)]
pub(crate) struct RuntimeArgs {
    /// File name of a container runtime, in addition to the known ones
    #[arg(long, hide_short_help = true, value_name = "NAME")]
    pub(crate) runtime_name: Vec<String>,
    /// State directory of a runtime (its --root), in addition to the known ones
    #[arg(long, hide_short_help = true, value_name = "DIR")]
    pub(crate) runtime_root: Vec<PathBuf>,
    /// CRI socket of the container engine, instead of the usual ones; none to query no engine
    #[arg(long, hide_short_help = true, value_name = "ENDPOINT")]
    pub(crate) runtime_endpoint: Option<String>,
    /// Subscribe to the engine's events. An engine may wait for its subscribers: suspended by Ctrl-Z, tracer would
    /// delay the node's pods
    #[arg(long, hide_short_help = true)]
    pub(crate) runtime_events: bool,
    /// Trust rootless runtimes. Any local user can then claim any pod name
    #[arg(long, hide_short_help = true)]
    pub(crate) trust_rootless: bool,
}

/// Containers to select: all of the node by default. Options can be repeated, values are separated by commas, and `!x`
/// excludes x.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = SELECTION)]
pub(crate) struct SelectionArgs {
    /// Namespaces of pods. Values repeat or take commas, !x excludes x, and * ? [ab] are globs; likewise for -p -c --comm
    #[arg(short, long, value_name = "NS")]
    pub(crate) namespace: Vec<String>,
    /// All namespaces; overrides -n
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Names of pods, or NAMESPACE/POD
    #[arg(short, long, value_name = "POD")]
    pub(crate) pod: Vec<String>,
    /// Names of containers in their pods
    #[arg(short, long, value_name = "CONTAINER")]
    pub(crate) container: Vec<String>,
    /// Label selector for pods: k=v, k!=v, 'k in (a,b)', 'k notin (a,b)', k, !k; several are separated by commas
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn definition_is_valid() {
        Args::command().debug_assert();
    }

    #[test]
    fn systemd_unit_uses_existing_options() {
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
        // Events must not displace the node's own logs in its journal.
        assert!(unit.contains("\nLogNamespace=tracer\n") && unit.contains("journalctl --namespace=tracer"));
        // A restart fixes neither.
        assert!(unit.contains(&format!(
            "RestartPreventExitStatus={} {}\n",
            crate::error::USAGE,
            crate::error::UNSUPPORTED
        )));
    }
}
