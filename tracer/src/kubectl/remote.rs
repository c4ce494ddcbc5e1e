//! What is executed on a node. Each value is part of the word of its option: none can pass for an option itself.

use std::time::Duration;

use crate::{
    cli::args::{ListArgs, LogArgs, OutputArgs, RuntimeArgs, SelectionArgs, TraceArgs},
    run::lease::format_term,
};

/// Where an agent has it.
const TRACER: &str = "/tracer";

/// `tracer doctor`.
pub(super) fn doctor() -> Vec<String> {
    vec![TRACER.into(), "doctor".into()]
}

/// A command of a node's `tracer`, but for the node's name.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    words: Vec<String>,
}

impl Remote {
    /// `tracer trace`. Time and number of events have their limits here.
    pub(super) fn trace(args: &TraceArgs, namespaces: &[String], lease: Duration, log: LogArgs) -> Self {
        let TraceArgs {
            kind,
            host,
            failed,
            pid,
            uid,
            comm,
            max_events: _,
            buffer_size,
            hook,
            selection,
            output: OutputArgs { output: _, no_headers: _, timeout: _ },
            runtimes,
        } = args;
        let mut remote = Self { words: vec![TRACER.into(), "trace".into(), kind.clone()] };
        remote.common(lease, log);
        remote.flag("host", *host);
        remote.flag("failed", *failed);
        remote.values("pid", pid);
        remote.values("uid", uid);
        remote.values("comm", comm);
        remote.value("buffer-size", buffer_size.as_u64());
        remote.value("hook", hook);
        remote.selection(selection, namespaces);
        remote.runtimes(runtimes);
        remote
    }

    /// `tracer list-containers`.
    pub(super) fn list(args: &ListArgs, namespaces: &[String], lease: Duration, log: LogArgs) -> Self {
        let ListArgs {
            watch,
            selection,
            output: OutputArgs { output: _, no_headers: _, timeout: _ },
            runtimes,
        } = args;
        let mut remote = Self { words: vec![TRACER.into(), "list-containers".into()] };
        remote.common(lease, log);
        remote.flag("watch", *watch);
        remote.selection(selection, namespaces);
        remote.runtimes(runtimes);
        remote
    }

    /// On this node.
    pub(super) fn on(&self, node: &str) -> Vec<String> {
        let mut on = self.clone();
        on.value("node", node);
        on.words
    }

    fn common(&mut self, lease: Duration, log: LogArgs) {
        self.value("output", "json");
        self.value("lease", format_term(lease));
        for _ in 0..log.verbose {
            self.flag("verbose", true);
        }
        self.flag("quiet", log.quiet);
    }

    fn selection(&mut self, args: &SelectionArgs, namespaces: &[String]) {
        // What is asked for has been found out here.
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
                Remote::trace(&trace.args, &trace.args.selection.namespace, lease, common.log.log()).on("n1")
            }
            Command::ListContainers(list) => {
                Remote::list(&list.args, &list.args.selection.namespace, lease, common.log.log()).on("n1")
            }
            Command::Doctor(_) => doctor(),
            Command::Generate(_) | Command::Deploy(_) | Command::Undeploy(_) => {
                panic!("{line:?} runs on no node")
            }
        }
    }

    #[test]
    fn what_is_asked_for_here_is_asked_for_there() {
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
        // A value that looks like an option is refused as such.
        assert!(Args::try_parse_from(line).is_err());
        let line = line.map(|word| if word == "--host" { "--pod=--host" } else { word });
        let line: Vec<&str> = line.into_iter().filter(|word| *word != "-p").collect();
        assert_eq!(
            words(&line),
            [
                "/tracer",
                "trace",
                "exec",
                "--output=json",
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
    fn a_list_is_asked_for_likewise() {
        assert_eq!(
            words(&["kubectl-tracer", "list-containers", "-w", "-q", "-n", "a"]),
            [
                "/tracer",
                "list-containers",
                "--output=json",
                "--lease=2s500ms",
                "--quiet",
                "--watch",
                "--namespace=a",
                "--node=n1",
            ]
        );
    }
}
