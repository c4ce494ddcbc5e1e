//! `cargo xtask kind`: tracer on a real cluster of two nodes, as users deploy it. [`SCRIPT`] does the work.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use crate::{
    cargo,
    dist::Target,
    image,
    pins::{KIND, KIND_NODE},
    process::{exit_code, ignore_interrupts, quietly, target_dir},
    setup::{self, Scope},
};

const SCRIPT: &str = include_str!("kind.sh");
/// Exit code where the machine lacks something that a cluster takes. tracer has the same for what a kernel lacks.
const NOT_POSSIBLE: u8 = 3;

pub(crate) fn run(sh: &Shell) -> Result<ExitCode> {
    let missing = missing(sh);
    if !missing.is_empty() {
        eprintln!("cannot make a cluster here:\n  {}", missing.join("\n  "));
        return Ok(ExitCode::from(NOT_POSSIBLE));
    }
    setup::ensure(sh, Scope::Kind)?;
    // With `localhost`, nodes do not ask a registry for it.
    let tag = format!("localhost/{}", image::tag());
    image::build(sh, sh.cmd("docker"), Target::here()?, &tag)?;
    let tracer = cargo::tracer_and_client(sh)?;
    let client = tracer.parent().context("it is in a directory")?;
    let busybox = setup::static_busybox().context("there is no static busybox")?;
    let logs = target_dir().join("kind");
    // Ctrl-C ends the script, which deletes the cluster; this process waits for it.
    ignore_interrupts()?;
    let script = cmd!(sh, "sh -c {SCRIPT} kind {tag} {client} {busybox} {KIND_NODE} {logs}").quiet();
    Ok(exit_code(Command::from(script).status()?))
}

/// What is missing to make a cluster, a line each. Downloads the image of nodes.
fn missing(sh: &Shell) -> Vec<String> {
    let mut missing = Vec::new();
    let version = quietly(cmd!(sh, "kind version --quiet")).unwrap_or_else(|_| "none".to_owned());
    if version.trim().trim_start_matches('v') != KIND {
        let install = format!("go install sigs.k8s.io/kind@v{KIND}");
        missing.push(format!("kind {KIND} (found {}): `{install}`, or its release", version.trim()));
    }
    if which::which("kubectl").is_err() {
        missing.push("kubectl: from your distribution, or a release of Kubernetes".to_owned());
    }
    if !image::works(sh, "docker") {
        missing.push("docker, with its daemon running and answering this user".to_owned());
    } else if missing.is_empty() {
        let has_image = quietly(cmd!(sh, "docker image inspect {KIND_NODE}")).is_ok();
        if !has_image && cmd!(sh, "docker pull {KIND_NODE}").run().is_err() {
            missing.push(format!("the image of nodes, {KIND_NODE}: it cannot be downloaded"));
        }
    }
    missing
}
