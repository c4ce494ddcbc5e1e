//! Command line of `kubectl tracer`: kubectl's options, and those of `tracer` on a node.

use std::{path::PathBuf, time::Duration};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use secrecy::SecretString;

use crate::{
    cli::{
        args::{AboutArgs, ListArgs, LogArgs, TraceArgs},
        generate::Generate,
        help::{GLOBAL, examples},
    },
    error::Usage,
    kubectl::{
        confinement::{Seccomp, parse_selinux_type},
        image,
    },
    run::lease,
};

/// Show which pod of the cluster opens which file and runs which program, from a container's first instruction on
#[derive(Debug, Parser)]
#[command(name = "kubectl-tracer", bin_name = "kubectl tracer", version, propagate_version = true)]
#[command(disable_help_flag = true, disable_version_flag = true, before_help = examples(&EXAMPLES))]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Examples of the program and of its commands: what they show, and the command line.
const EXAMPLES: [(&str, &str); 4] = [
    ("Install an agent on each node", "kubectl tracer deploy --image REGISTRY/tracer:TAG"),
    ("Files that the pods of a namespace open, on all nodes", "kubectl tracer trace open -n kube-system"),
    ("The containers of the cluster, and how they change", "kubectl tracer list-containers -A -w"),
    ("Remove the agents", "kubectl tracer undeploy"),
];
const TRACE_EXAMPLES: [(&str, &str); 5] = [
    ("Files that the pods of a namespace open", "kubectl tracer trace open -n kube-system"),
    (
        "What goes wrong in the pods of a deployment: failed opens and executions, exit codes, signals",
        "kubectl tracer trace open,exec,exit -p deploy/web --failed",
    ),
    ("Programs that all pods of two nodes execute", "kubectl tracer trace exec -A --node worker-1,worker-2"),
    (
        "For ten seconds, as JSON, without agents installed",
        "kubectl tracer trace exec -A --timeout 10s -o json --ephemeral --image REGISTRY/tracer:TAG",
    ),
    ("All columns and JSON fields of a kind", "kubectl tracer trace open -o help"),
];
const LIST_EXAMPLES: [(&str, &str); 2] = [
    ("The containers of a namespace, with their nodes", "kubectl tracer list-containers -n kube-system"),
    ("How those of a deployment change", "kubectl tracer list-containers -p deploy/web -w"),
];
const DOCTOR_EXAMPLES: [(&str, &str); 2] = [
    ("Check all nodes that have an agent", "kubectl tracer doctor"),
    ("Check one node", "kubectl tracer doctor --node worker-1"),
];
const DEPLOY_EXAMPLES: [(&str, &str); 3] = [
    ("Install an agent on each node", "kubectl tracer deploy --image REGISTRY/tracer@sha256:DIGEST"),
    (
        "Print the objects without applying them",
        "kubectl tracer deploy --image REGISTRY/tracer:TAG --dry-run -o yaml",
    ),
    (
        "Allow nothing but tracer to be executed in the agents",
        "kubectl tracer deploy --image REGISTRY/tracer:TAG --restrict-exec",
    ),
];
const UNDEPLOY_EXAMPLES: [(&str, &str); 1] = [("Remove the agents", "kubectl tracer undeploy")];

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Trace events on all nodes, each with its pod
    ///
    /// Without -n and -A, trace the namespace of the kubeconfig's context.
    #[command(before_help = examples(&TRACE_EXAMPLES))]
    Trace(Box<OnNodes<TraceArgs>>),
    /// List the containers of all nodes, each with its pod
    ///
    /// Without -n and -A, list the namespace of the kubeconfig's context.
    #[command(before_help = examples(&LIST_EXAMPLES))]
    ListContainers(Box<OnNodes<ListArgs>>),
    /// Check whether each node supports tracing, and how to fix what is missing
    #[command(before_help = examples(&DOCTOR_EXAMPLES))]
    Doctor(NodesArgs),
    /// Deploy an agent on each node: a namespace, a ServiceAccount without permissions, a DaemonSet
    #[command(before_help = examples(&DEPLOY_EXAMPLES))]
    Deploy(DeployArgs),
    /// Delete what deploy has created
    #[command(before_help = examples(&UNDEPLOY_EXAMPLES))]
    Undeploy(UndeployArgs),
    #[command(flatten)]
    Generate(Generate),
}

/// Options of all commands.
#[derive(Debug, ClapArgs)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) cluster: ClusterArgs,
    #[command(flatten)]
    pub(super) log: VerbosityArgs,
    #[command(flatten)]
    pub(super) about: AboutArgs,
}

/// kubectl's verbosity.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = GLOBAL)]
pub(super) struct VerbosityArgs {
    /// Log more to stderr; given twice, or from level 6 on, log requests to the API server; from level 8 on, log everything
    #[arg(short, long = "v", alias = "verbose", value_name = "LEVEL", num_args = 0..=1, require_equals = true,
        default_missing_value = "1", action = clap::ArgAction::Append, global = true)]
    verbose: Vec<u8>,
    /// Log errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
}

impl VerbosityArgs {
    /// The verbosity of `tracer` on the nodes.
    pub(super) fn log(&self) -> LogArgs {
        /// The levels from which on kubectl logs requests, and their content.
        const REQUESTS: u8 = 6;
        const EVERYTHING: u8 = 8;
        let level = self.verbose.iter().max().copied().unwrap_or_default();
        let verbose = match level {
            0 => 0,
            // A flag, as often as it was given.
            1 => u8::try_from(self.verbose.len()).unwrap_or(u8::MAX),
            2..REQUESTS => 1,
            REQUESTS..EVERYTHING => 2,
            EVERYTHING.. => 3,
        };
        LogArgs { verbose, quiet: self.quiet }
    }
}

/// Heading of the options that choose a cluster and a user.
const CLUSTER: &str = "Cluster";

/// kubectl's options for the cluster and the user.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = CLUSTER)]
pub(super) struct ClusterArgs {
    /// Kubeconfig file [default: $KUBECONFIG, ~/.kube/config, or in a pod its ServiceAccount]
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: the current one]
    #[arg(long, value_name = "NAME", global = true)]
    pub(super) context: Option<String>,
    /// Cluster of the kubeconfig [default: the context's]
    #[arg(long, value_name = "NAME", hide_short_help = true, global = true)]
    pub(super) cluster: Option<String>,
    /// User of the kubeconfig [default: the context's]
    #[arg(long, value_name = "NAME", hide_short_help = true, global = true)]
    pub(super) user: Option<String>,
    #[command(flatten)]
    pub(super) as_user: UserArgs,
    #[command(flatten)]
    pub(super) server: ServerArgs,
    /// Namespace of the agents [default: tracer; with --ephemeral: kube-system]
    #[arg(long, value_name = "NS", global = true)]
    pub(super) tracer_namespace: Option<String>,
}

/// Options that override the kubeconfig's user.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = CLUSTER)]
pub(super) struct UserArgs {
    /// User to impersonate
    #[arg(long = "as", value_name = "USER", hide_short_help = true, global = true)]
    pub(super) impersonate: Option<String>,
    /// Group to impersonate; repeatable
    #[arg(long = "as-group", value_name = "GROUP", hide_short_help = true, global = true)]
    pub(super) impersonate_group: Vec<String>,
    /// UID to impersonate
    #[arg(long = "as-uid", value_name = "UID", hide_short_help = true, global = true)]
    pub(super) impersonate_uid: Option<String>,
    /// Extra value to impersonate; repeatable
    #[arg(long = "as-user-extra", value_name = "KEY=VALUE", value_parser = key_and_value,
        hide_short_help = true, global = true)]
    pub(super) impersonate_user_extra: Vec<(String, String)>,
    /// Bearer token
    #[arg(long, value_name = "TOKEN", value_parser = secret, hide_short_help = true, global = true)]
    pub(super) token: Option<SecretString>,
    /// Client certificate file, in PEM
    #[arg(long, value_name = "FILE", hide_short_help = true, global = true)]
    pub(super) client_certificate: Option<String>,
    /// Key file of the client certificate, in PEM
    #[arg(long, value_name = "FILE", hide_short_help = true, global = true)]
    pub(super) client_key: Option<String>,
}

/// Options that override the kubeconfig's cluster.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = CLUSTER)]
pub(super) struct ServerArgs {
    /// Address of the API server
    #[arg(short, long, value_name = "URL", value_parser = clap::builder::NonEmptyStringValueParser::new(),
        hide_short_help = true, global = true)]
    pub(super) server: Option<String>,
    /// Certificate file of the API server's certificate authority, in PEM
    #[arg(long, value_name = "FILE", hide_short_help = true, global = true)]
    pub(super) certificate_authority: Option<String>,
    /// Name to verify the API server's certificate against [default: the host of its address]
    #[arg(long, value_name = "NAME", hide_short_help = true, global = true)]
    pub(super) tls_server_name: Option<String>,
    /// Do not verify the API server's certificate (insecure: the connection can be intercepted)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", action = clap::ArgAction::Set, hide_short_help = true, global = true)]
    pub(super) insecure_skip_tls_verify: bool,
    /// Time limit for a request to the API server, not for streams; 0 means none [default: 1m]
    #[arg(long, value_name = "TIME", value_parser = request_timeout, hide_short_help = true, global = true)]
    pub(super) request_timeout: Option<Duration>,
    /// Ignored, for compatibility with kubectl: tracer has no cache
    #[arg(long, value_name = "DIR", hide = true, global = true)]
    pub(super) cache_dir: Option<PathBuf>,
}

#[expect(clippy::unnecessary_wraps, reason = "clap requires a result")]
fn secret(text: &str) -> Result<SecretString, String> {
    Ok(SecretString::from(text))
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Parses kubectl's format: a number of seconds, or one with a unit. 0 means no limit.
fn request_timeout(text: &str) -> Result<Duration, String> {
    /// Practically no limit.
    const UNLIMITED: Duration = Duration::from_hours(24 * 365);
    let time = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string())?,
    };
    Ok(if time.is_zero() { UNLIMITED } else { time })
}

/// The image of the release, by digest. Builds for a release set the variable.
const RELEASE_IMAGE: Option<&str> = option_env!("TRACER_IMAGE");
/// The default namespace of deployed agents.
pub(super) const NAMESPACE: &str = "tracer";
/// The default namespace of agents for one run: it exists and permits privileged pods.
pub(super) const EPHEMERAL_NAMESPACE: &str = "kube-system";

impl ClusterArgs {
    /// The namespace of deployed agents.
    pub(super) fn tracer_namespace(&self) -> &str {
        self.tracer_namespace.as_deref().unwrap_or(NAMESPACE)
    }
}

/// Options of `deploy`.
#[derive(Debug, ClapArgs)]
pub(super) struct DeployArgs {
    /// Image of the agents, from a registry that the nodes can pull from; released builds have a default
    #[arg(long, value_name = "IMAGE", default_value = RELEASE_IMAGE)]
    pub(super) image: Option<String>,
    /// Allow only tracer to be executed in the agents' pods (ValidatingAdmissionPolicy, Kubernetes 1.30)
    #[arg(long)]
    pub(super) restrict_exec: bool,
    /// Seccomp profile of the agents: unconfined, runtime/default, or localhost/FILE with a file on each node
    #[arg(long, value_name = "PROFILE", value_parser = Seccomp::parse)]
    pub(super) seccomp_profile: Option<Seccomp>,
    /// SELinux type of the agents [default: spc_t]; super_t on Bottlerocket
    #[arg(long, value_name = "TYPE", value_parser = parse_selinux_type)]
    pub(super) selinux_type: Option<String>,
    /// Change nothing; client prints the objects, server validates them on the API server
    #[arg(long, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_value = "none",
        default_missing_value = "client")]
    pub(super) dry_run: DryRun,
    /// Output format for the objects
    #[arg(short, long, value_name = "FORMAT")]
    pub(super) output: Option<ObjectFormat>,
    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

/// Options of `undeploy`.
#[derive(Debug, ClapArgs)]
pub(super) struct UndeployArgs {
    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

/// Options for waiting.
#[derive(Debug, ClapArgs)]
pub(super) struct WaitArgs {
    /// Wait until all nodes are done
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(super) wait: bool,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = humantime::parse_duration)]
    pub(super) timeout: Duration,
}

/// Values of `--dry-run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DryRun {
    None,
    Client,
    Server,
}

/// Formats of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ObjectFormat {
    Yaml,
    Kyaml,
    Json,
    Name,
}

/// A command of `tracer`, and the nodes to run it on.
#[derive(Debug, ClapArgs)]
pub(super) struct OnNodes<A: ClapArgs> {
    #[command(flatten)]
    pub(super) args: A,
    #[command(flatten)]
    pub(super) nodes: NodesArgs,
}

/// Options that select nodes and agents.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Nodes")]
pub(super) struct NodesArgs {
    /// Select nodes by name; repeatable or comma-separated
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    pub(super) node: Vec<String>,
    /// Create agents for this run and delete them afterwards
    #[arg(long)]
    pub(super) ephemeral: bool,
    /// Image of the agents of --ephemeral; released builds have a default
    #[arg(long, value_name = "IMAGE", requires = "ephemeral", default_value = RELEASE_IMAGE)]
    pub(super) image: Option<String>,
    /// Time after which tracer on a node exits without a heartbeat from this client
    #[arg(long, value_name = "TIME", hide = true, default_value = "10s", value_parser = lease::parse_term)]
    pub(super) lease: Duration,
    /// The same for agents of --ephemeral
    #[arg(long, value_name = "TIME", hide = true, default_value = "30s", value_parser = lease::parse_term)]
    pub(super) agent_lease: Duration,
}

impl NodesArgs {
    /// Selects all nodes.
    pub(super) const fn all() -> Self {
        Self {
            node: Vec::new(),
            ephemeral: false,
            image: None,
            lease: Duration::ZERO,
            agent_lease: Duration::ZERO,
        }
    }

    /// Rejects an image for --ephemeral that nodes must not pull.
    pub(super) fn check_image(&self) -> Result<(), Usage> {
        if self.ephemeral { image::check(self.image.as_deref()).map_err(Usage) } else { Ok(()) }
    }

    /// Whether a node is selected.
    pub(super) fn selects(&self, node: &str) -> bool {
        self.node.is_empty() || self.node.iter().any(|wanted| wanted == node)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::{generate::tests::check, help::definition};

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn commands_have_completion_and_manual_pages() {
        check(
            &definition::<Args>(),
            &["trace", "list-containers", "doctor", "deploy", "undeploy", "all-namespaces", "kubeconfig"],
            &[
                "kubectl-tracer-completions.1",
                "kubectl-tracer-deploy.1",
                "kubectl-tracer-doctor.1",
                "kubectl-tracer-kinds.1",
                "kubectl-tracer-list-containers.1",
                "kubectl-tracer-trace.1",
                "kubectl-tracer-undeploy.1",
                "kubectl-tracer.1",
            ],
        );
    }

    #[test]
    fn verbosity_is_kubectls_number_or_a_flag() {
        let verbose = |words: &[&str]| {
            let line = [&["kubectl-tracer", "doctor"], words].concat();
            Args::try_parse_from(line)
                .map(|args| args.common.log.log().verbose)
                .map_err(|error| error.to_string())
        };
        for (words, level) in [
            (&[][..], 0),
            (&["-v=0"], 0),
            (&["-v"], 1),
            (&["-v=5"], 1),
            (&["-v=6"], 2),
            (&["--v=6"], 2),
            (&["--verbose"], 1),
            (&["-v=9"], 3),
            (&["-v=1", "-v=9"], 3),
            (&["-v", "-v"], 2),
            (&["-vv"], 2),
            (&["-vvv"], 3),
        ] {
            assert_eq!(verbose(words), Ok(level), "{words:?}");
        }
        assert!(verbose(&["-v=x"]).is_err());
    }

    #[test]
    fn request_timeout_has_kubectls_format() {
        assert_eq!(request_timeout("5"), Ok(Duration::from_secs(5)));
        assert_eq!(request_timeout("2m"), Ok(Duration::from_mins(2)));
        assert!(request_timeout("0").unwrap() > Duration::from_hours(24));
        assert!(request_timeout("soon").is_err());
    }

    #[test]
    fn nodes_are_repeatable_or_comma_separated() {
        let args = Args::try_parse_from(["kubectl-tracer", "doctor", "--node", "a,b", "--node=c"]).unwrap();
        let Command::Doctor(nodes) = args.command else { panic!() };
        assert!(["a", "b", "c"].iter().all(|node| nodes.selects(node)) && !nodes.selects("d"));
    }
}
