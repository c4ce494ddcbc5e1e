//! Refuses arguments where this program has privileges that its caller lacks.
//!
//! In the image of the agents the file `/tracer` has capabilities (`deploy/`), and whoever may execute commands in an agent's
//! pod can run it with any arguments. Whatever those are must be harmless: tracing, listing, describing.

use crate::{
    cli::{
        args::{Command, RuntimeArgs},
        generate::Generate,
    },
    cri,
    error::Usage,
};

/// An error if `command` would use this program's privileges for anything but tracing.
pub(super) fn check(command: &Command) -> Result<(), Usage> {
    match command {
        Command::Trace(trace) => check_runtimes(&trace.args.runtimes),
        Command::ListContainers(list) => check_runtimes(&list.args.runtimes),
        Command::Doctor
        | Command::Agent(_)
        | Command::Generate(Generate::Completions { .. } | Generate::Kinds(_)) => Ok(()),
        Command::Generate(Generate::Man { .. }) => Err(refused("man", "it writes files")),
    }
}

fn check_runtimes(args: &RuntimeArgs) -> Result<(), Usage> {
    let RuntimeArgs { runtime_name: _, runtime_root, runtime_endpoint, runtime_events, trust_rootless } =
        args;
    if !runtime_root.is_empty() {
        return Err(refused(
            "--runtime-root",
            "it reads files of any directory; the pod may have /etc/tracer/runtime-root",
        ));
    }
    if let Some(endpoint) = runtime_endpoint {
        let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
        if endpoint != cri::NONE && !cri::SOCKETS.contains(&path) {
            let why = "it connects to any socket; the pod may have /etc/tracer/runtime-endpoint";
            return Err(refused("--runtime-endpoint", why));
        }
    }
    if *runtime_events {
        return Err(refused("--runtime-events", "it may hold up the container engine"));
    }
    if *trust_rootless {
        return Err(refused("--trust-rootless", "users of the node choose which files it reads"));
    }
    Ok(())
}

fn refused(what: &str, why: &str) -> Usage {
    Usage(format!(
        "{what} is refused, since this tracer has more privileges than the user who runs it: {why}"
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::Args;

    fn check_line(words: &[&str]) -> Result<(), String> {
        let args = Args::try_parse_from([&["tracer"], words].concat()).unwrap();
        check(&args.command).map_err(|Usage(problem)| problem)
    }

    #[test]
    fn commands_of_kubectl_tracer_are_allowed() {
        for words in [
            &["trace", "open", "--output=frames=1", "--lease=10s", "--namespace=a", "--node=n", "-vv"][..],
            &["trace", "exec", "--runtime-endpoint=none", "--runtime-name=r"],
            &["list-containers", "--watch", "--runtime-endpoint=unix:///run/crio/crio.sock"],
            &["doctor"],
            &["agent", "--lease=1h"],
            &["completions", "bash"],
            &["kinds", "open", "-o", "json-schema"],
        ] {
            assert_eq!(check_line(words), Ok(()), "{words:?}");
        }
    }

    #[test]
    fn options_that_read_write_or_connect_elsewhere_are_refused() {
        for words in [
            &["man", "/proc/1/root/tmp"][..],
            &["trace", "open", "--runtime-root=/proc/1/root/root"],
            &["list-containers", "--runtime-root", "/etc"],
            &["list-containers", "--runtime-endpoint=/run/docker.sock"],
            &["trace", "exec", "--runtime-endpoint=unix:///run/x.sock"],
            &["trace", "exec", "--runtime-events"],
            &["trace", "exec", "--trust-rootless"],
        ] {
            let problem = check_line(words).unwrap_err();
            assert!(problem.contains("is refused"), "{words:?}: {problem}");
        }
    }
}
