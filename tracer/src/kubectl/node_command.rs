//! The command line of `tracer` on a node. Each value is in one word with its option, so that none is read as an option.

use std::time::Duration;

use crate::{
    cli::{
        args::{FilterArgs, ListArgs, LogArgs, OutputArgs, RuntimeArgs, SelectionArgs, TraceArgs},
        config::FRAMES,
    },
    frames,
    run::lease::format_term,
};

/// Its path in an agent.
const TRACER: &str = "/tracer";

/// `tracer doctor`.
pub(super) fn doctor() -> Vec<String> {
    vec![TRACER.into(), "doctor".into()]
}

/// A command line, without the node's name.
#[derive(Clone, Debug)]
pub(super) struct NodeCommand {
    words: Vec<String>,
}

impl NodeCommand {
    /// `tracer trace`. The client itself limits the time and the number of events.
    pub(super) fn trace(args: &TraceArgs, namespaces: &[String], lease: Duration, log: LogArgs) -> Self {
        let TraceArgs {
            kind,
            filter: FilterArgs { host, failed, pid, uid, comm },
            timestamps: _,
            max_events: _,
            buffer_size,
            hook,
            selection,
            output: OutputArgs { output: _, no_headers: _, color: _, timeout: _ },
            runtimes,
        } = args;
        let mut command = Self { words: vec![TRACER.into(), "trace".into(), kind.join(",")] };
        command.common(lease, log);
        command.flag("host", *host);
        command.flag("failed", *failed);
        command.values("pid", pid);
        command.values("uid", uid);
        command.values("comm", comm);
        command.value("buffer-size", buffer_size.as_u64());
        command.value("hook", hook);
        command.selection(selection, namespaces);
        command.runtimes(runtimes);
        command
    }

    /// `tracer list-containers`.
    pub(super) fn list(args: &ListArgs, namespaces: &[String], lease: Duration, log: LogArgs) -> Self {
        let ListArgs {
            watch,
            failed,
            selection,
            output: OutputArgs { output: _, no_headers: _, color: _, timeout: _ },
            runtimes,
        } = args;
        let mut command = Self { words: vec![TRACER.into(), "list-containers".into()] };
        command.common(lease, log);
        command.flag("watch", *watch);
        command.flag("failed", *failed);
        command.selection(selection, namespaces);
        command.runtimes(runtimes);
        command
    }

    /// The command line for a node.
    pub(super) fn on(&self, node: &str) -> Vec<String> {
        let mut command = self.clone();
        command.value("node", node);
        command.words
    }

    fn common(&mut self, lease: Duration, log: LogArgs) {
        self.value("output", format_args!("{FRAMES}{}", frames::VERSION));
        self.value("lease", format_term(lease));
        for _ in 0..log.verbose {
            self.flag("verbose", true);
        }
        self.flag("quiet", log.quiet);
    }

    fn selection(&mut self, args: &SelectionArgs, namespaces: &[String]) {
        // The client has determined the namespaces.
        let SelectionArgs { namespace: _, all_namespaces: _, pod, container, selector } = args;
        self.values("namespace", namespaces);
        self.values("pod", pod);
        self.values("container", container);
        self.values("selector", selector);
    }

    fn runtimes(&mut self, args: &RuntimeArgs) {
        let RuntimeArgs { runtime_name, runtime_root, runtime_endpoint, runtime_events, trust_rootless } =
            args;
        self.values("runtime-name", runtime_name);
        for root in runtime_root {
            self.value("runtime-root", root.display());
        }
        if let Some(endpoint) = runtime_endpoint {
            self.value("runtime-endpoint", endpoint);
        }
        self.flag("runtime-events", *runtime_events);
        self.flag("trust-rootless", *trust_rootless);
    }

    fn flag(&mut self, name: &str, given: bool) {
        if given {
            self.words.push(format!("--{name}"));
        }
    }

    fn value(&mut self, name: &str, value: impl std::fmt::Display) {
        self.words.push(format!("--{name}={value}"));
    }

    fn values(&mut self, name: &str, values: &[String]) {
        for value in values {
            self.value(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::kubectl::args::{Args, Command};

    fn words(line: &[&str]) -> Vec<String> {
        let Args { command, common } = Args::try_parse_from(line).unwrap();
        let lease = Duration::from_millis(2500);
        match command {
            Command::Trace(trace) => {
                NodeCommand::trace(&trace.args, &trace.args.selection.namespace, lease, common.log.log())
                    .on("n1")
            }
            Command::ListContainers(list) => {
                NodeCommand::list(&list.args, &list.args.selection.namespace, lease, common.log.log())
                    .on("n1")
            }
            Command::Doctor(_) => doctor(),
            Command::Generate(_) | Command::Deploy(_) | Command::Undeploy(_) => {
                panic!("{line:?} runs nothing on nodes")
            }
        }
    }

    #[test]
    fn arguments_are_passed_to_the_node() {
        let line = [
            "kubectl-tracer",
            "trace",
            "exec",
            "-n",
            "a,!b",
            "-p",
            "--host",
            "-c=x",
            "-l",
            "k in (v)",
            "--failed",
            "--pid",
            "1",
            "--uid=0",
            "--comm",
            "sh",
            "--buffer-size",
            "1MiB",
            "--max-events",
            "5",
            "--timeout",
            "9s",
            "-o",
            "yaml",
            "--node",
            "other",
            "--runtime-name",
            "r",
            "--runtime-root",
            "/run/r",
            "--runtime-endpoint",
            "none",
            "-vv",
            "--trust-rootless",
            "--runtime-events",
        ];
        // A value that looks like an option is rejected.
        assert!(Args::try_parse_from(line).is_err());
        let line = line.map(|word| if word == "--host" { "--pod=--host" } else { word });
        let line: Vec<&str> = line.into_iter().filter(|word| *word != "-p").collect();
        assert_eq!(
            words(&line),
            [
                "/tracer",
                "trace",
                "exec",
                "--output=frames=1",
                "--lease=2s500ms",
                "--verbose",
                "--verbose",
                "--failed",
                "--pid=1",
                "--uid=0",
                "--comm=sh",
                "--buffer-size=1048576",
                "--hook=auto",
                "--namespace=a,!b",
                "--pod=--host",
                "--container=x",
                "--selector=k in (v)",
                "--runtime-name=r",
                "--runtime-root=/run/r",
                "--runtime-endpoint=none",
                "--runtime-events",
                "--trust-rootless",
                "--node=n1",
            ]
        );
    }

    #[test]
    fn arguments_of_a_list_are_passed_to_the_node() {
        assert_eq!(
            words(&["kubectl-tracer", "list-containers", "-w", "-q", "-n", "a"]),
            [
                "/tracer",
                "list-containers",
                "--output=frames=1",
                "--lease=2s500ms",
                "--quiet",
                "--watch",
                "--namespace=a",
                "--node=n1",
            ]
        );
    }
}
