//! Arguments of `kubectl tracer`: kubectl's spelling, and all that `tracer` takes on a node.

use std::{path::PathBuf, time::Duration};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use secrecy::SecretString;

use crate::{
    cli::{
        args::{ListArgs, LogArgs, TraceArgs},
        generate::Generate,
    },
    kubectl::confinement::{Seccomp, parse_selinux_type},
    run::lease,
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
    /// Put an agent on each node: a namespace, a ServiceAccount without rights, a DaemonSet
    Deploy(DeployArgs),
    /// Take away what deploy has put there
    Undeploy(UndeployArgs),
    #[command(flatten)]
    Generate(Generate),
}

/// What all commands take.
#[derive(Debug, ClapArgs)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) cluster: ClusterArgs,
    #[command(flatten)]
    pub(super) log: VerbosityArgs,
}

/// How much is logged, as kubectl has it.
#[derive(Clone, Debug, ClapArgs)]
pub(super) struct VerbosityArgs {
    /// Log more to standard error, requests to the API server included; twice, or from level 8 on, everything
    #[arg(short, long = "v", alias = "verbose", value_name = "LEVEL", num_args = 0..=1, require_equals = true,
        default_missing_value = "1", action = clap::ArgAction::Append, global = true)]
    verbose: Vec<u8>,
    /// Log errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
}

impl VerbosityArgs {
    /// As the nodes' tracers have it.
    pub(super) fn log(&self) -> LogArgs {
        /// From here on kubectl prints what it sends and receives.
        const EVERYTHING: u8 = 8;
        let level = self.verbose.iter().max().copied().unwrap_or_default();
        let verbose = match level {
            0 => 0,
            1 if self.verbose.len() > 1 => 2,
            1..EVERYTHING => 1,
            EVERYTHING.. => 2,
        };
        LogArgs { verbose, quiet: self.quiet }
    }
}

/// Which cluster, and as whom: the options that kubectl has.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Cluster")]
pub(super) struct ClusterArgs {
    /// Kubeconfig file, instead of $KUBECONFIG or ~/.kube/config; without any, in a pod, its ServiceAccount
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig, instead of the current one
    #[arg(long, value_name = "NAME", global = true)]
    pub(super) context: Option<String>,
    /// Cluster of the kubeconfig, instead of the context's
    #[arg(long, value_name = "NAME", global = true)]
    pub(super) cluster: Option<String>,
    /// User of the kubeconfig, instead of the context's
    #[arg(long, value_name = "NAME", global = true)]
    pub(super) user: Option<String>,
    #[command(flatten)]
    pub(super) as_user: UserArgs,
    #[command(flatten)]
    pub(super) server: ServerArgs,
    /// Namespace of tracer's own pods: tracer, or kube-system with --ephemeral
    #[arg(long, value_name = "NS", global = true)]
    pub(super) tracer_namespace: Option<String>,
}

/// What replaces the kubeconfig's description of the user.
#[derive(Debug, ClapArgs)]
pub(super) struct UserArgs {
    /// User to impersonate
    #[arg(long = "as", value_name = "USER", global = true)]
    pub(super) impersonate: Option<String>,
    /// Group to impersonate; repeats
    #[arg(long = "as-group", value_name = "GROUP", global = true)]
    pub(super) impersonate_group: Vec<String>,
    /// UID to impersonate
    #[arg(long = "as-uid", value_name = "UID", global = true)]
    pub(super) impersonate_uid: Option<String>,
    /// Extra value to impersonate; repeats
    #[arg(long = "as-user-extra", value_name = "KEY=VALUE", value_parser = key_and_value, global = true)]
    pub(super) impersonate_user_extra: Vec<(String, String)>,
    /// Bearer token
    #[arg(long, value_name = "TOKEN", value_parser = secret, global = true)]
    pub(super) token: Option<SecretString>,
    /// Client certificate file, in PEM
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) client_certificate: Option<String>,
    /// Key file of the client certificate, in PEM
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) client_key: Option<String>,
}

/// What replaces the kubeconfig's description of the server.
#[derive(Debug, ClapArgs)]
pub(super) struct ServerArgs {
    /// Address of the API server
    #[arg(short, long, value_name = "URL", value_parser = clap::builder::NonEmptyStringValueParser::new(), global = true)]
    pub(super) server: Option<String>,
    /// Certificate file of the authority that signed the API server's certificate, in PEM
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) certificate_authority: Option<String>,
    /// Name that the API server's certificate must have, instead of the one in its address
    #[arg(long, value_name = "NAME", global = true)]
    pub(super) tls_server_name: Option<String>,
    /// Do not verify the API server's certificate: whoever is on the way can read and change everything
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", action = clap::ArgAction::Set, global = true)]
    pub(super) insecure_skip_tls_verify: bool,
    /// Time limit for an answer of the API server, instead of 1m; streams may go on
    #[arg(long, value_name = "TIME", value_parser = request_timeout, global = true)]
    pub(super) request_timeout: Option<Duration>,
    /// Accepted for kubectl's sake: tracer caches nothing
    #[arg(long, value_name = "DIR", hide = true, global = true)]
    pub(super) cache_dir: Option<PathBuf>,
}

#[expect(clippy::unnecessary_wraps, reason = "what clap calls returns a result")]
fn secret(text: &str) -> Result<SecretString, String> {
    Ok(SecretString::from(text))
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// As kubectl takes it: a number of seconds, or one with a unit. 0 is no limit.
fn request_timeout(text: &str) -> Result<Duration, String> {
    /// Longer than anybody waits.
    const UNLIMITED: Duration = Duration::from_hours(24 * 365);
    let time = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string())?,
    };
    Ok(if time.is_zero() { UNLIMITED } else { time })
}

/// Where agents are deployed unless told otherwise.
pub(super) const NAMESPACE: &str = "tracer";
/// Where those of one run are: it is there, and permits privileged pods.
pub(super) const EPHEMERAL_NAMESPACE: &str = "kube-system";

impl ClusterArgs {
    /// Where agents are deployed.
    pub(super) fn tracer_namespace(&self) -> &str {
        self.tracer_namespace.as_deref().unwrap_or(NAMESPACE)
    }
}

/// What to deploy.
#[derive(Debug, ClapArgs)]
pub(super) struct DeployArgs {
    /// The agents' image, from a registry that the nodes can pull from, instead of the one that this build is named after
    #[arg(long, value_name = "IMAGE")]
    pub(super) image: Option<String>,
    /// Let nothing be executed in the agents' pods but tracer, whoever asks: a ValidatingAdmissionPolicy (Kubernetes 1.30)
    #[arg(long)]
    pub(super) restrict_exec: bool,
    /// The agents' seccomp profile: unconfined, runtime/default, or localhost/FILE, which must be on each node
    #[arg(long, value_name = "PROFILE", value_parser = Seccomp::parse)]
    pub(super) seccomp_profile: Option<Seccomp>,
    /// The agents' SELinux type, instead of spc_t; super_t on Bottlerocket
    #[arg(long, value_name = "TYPE", value_parser = parse_selinux_type)]
    pub(super) selinux_type: Option<String>,
    /// Change nothing: client prints what would be applied, server asks the API server what would come of it
    #[arg(long, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_value = "none",
        default_missing_value = "client")]
    pub(super) dry_run: DryRun,
    /// Print the objects
    #[arg(short, long, value_name = "FORMAT")]
    pub(super) output: Option<Printed>,
    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

/// What to take away.
#[derive(Debug, ClapArgs)]
pub(super) struct UndeployArgs {
    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

/// Whether to wait.
#[derive(Debug, ClapArgs)]
pub(super) struct WaitArgs {
    /// Wait until it has come about on all nodes
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(super) wait: bool,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = humantime::parse_duration)]
    pub(super) timeout: Duration,
}

/// Where nothing is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DryRun {
    None,
    Client,
    Server,
}

/// How objects are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Printed {
    Yaml,
    Kyaml,
    Json,
    Name,
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
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Nodes")]
pub(super) struct NodesArgs {
    /// Only these nodes; repeats or takes commas
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    pub(super) node: Vec<String>,
    /// Make agents for this run, which vanish afterwards, instead of those that are deployed
    #[arg(long)]
    pub(super) ephemeral: bool,
    /// The image of --ephemeral's agents, instead of the one that this build is named after
    #[arg(long, value_name = "IMAGE", requires = "ephemeral")]
    pub(super) image: Option<String>,
    /// How long a node's tracer goes on by itself when nothing is heard from here
    #[arg(long, value_name = "TIME", hide = true, default_value = "10s", value_parser = lease::parse_term)]
    pub(super) lease: Duration,
    /// Likewise an agent of --ephemeral
    #[arg(long, value_name = "TIME", hide = true, default_value = "30s", value_parser = lease::parse_term)]
    pub(super) agent_lease: Duration,
}

impl NodesArgs {
    /// Each node, and nothing else.
    pub(super) const fn all() -> Self {
        Self {
            node: Vec::new(),
            ephemeral: false,
            image: None,
            lease: Duration::ZERO,
            agent_lease: Duration::ZERO,
        }
    }

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
            &["trace", "list-containers", "doctor", "deploy", "undeploy", "all-namespaces", "kubeconfig"],
            &[
                "kubectl-tracer-completions.1",
                "kubectl-tracer-deploy.1",
                "kubectl-tracer-doctor.1",
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
            (&["-v=6"], 1),
            (&["--v=6"], 1),
            (&["--verbose"], 1),
            (&["-v=9"], 2),
            (&["-v=1", "-v=9"], 2),
            (&["-v", "-v"], 2),
            (&["-vv"], 2),
        ] {
            assert_eq!(verbose(words), Ok(level), "{words:?}");
        }
        assert!(verbose(&["-v=x"]).is_err());
    }

    #[test]
    fn the_time_limit_is_read_as_kubectl_reads_it() {
        assert_eq!(request_timeout("5"), Ok(Duration::from_secs(5)));
        assert_eq!(request_timeout("2m"), Ok(Duration::from_mins(2)));
        assert!(request_timeout("0").unwrap() > Duration::from_hours(24));
        assert!(request_timeout("soon").is_err());
    }

    #[test]
    fn nodes_repeat_or_take_commas() {
        let args = Args::try_parse_from(["kubectl-tracer", "doctor", "--node", "a,b", "--node=c"]).unwrap();
        let Command::Doctor(nodes) = args.command else { panic!() };
        assert!(["a", "b", "c"].iter().all(|node| nodes.select(node)) && !nodes.select("d"));
    }
}
