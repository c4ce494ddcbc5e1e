//! `cargo xtask demo`: a small container, traced. It takes some seconds and leaves nothing behind, however it ends.
//! [`SCRIPT`] does the work, as root.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use xshell::{Cmd, Shell};

use crate::{
    cargo,
    process::{as_root, exit_code, ignore_interrupts, inherited},
    setup::{self, Scope},
};

const SCRIPT: &str = include_str!("demo.sh");

/// What the container runs, for about three seconds. The missing file shows what failures look like.
const IN_CONTAINER: &str = "\
for round in 1 2 3; do
    cat /etc/hosts /etc/hostname
    ls /
    cat /etc/missing
    sleep 1
done >/dev/null 2>&1
exit 0";

pub(crate) fn run(sh: &Shell) -> Result<ExitCode> {
    let (script, _dir) = script(sh)?;
    // Ctrl-C ends the script, which cleans up; this process waits for it.
    ignore_interrupts()?;
    Ok(exit_code(Command::from(script).status()?))
}

/// The script with its arguments, and the directory that it requires.
pub(crate) fn script(sh: &Shell) -> Result<(Cmd<'_>, TempDir)> {
    setup::ensure(sh, Scope::Demo)?;
    eprintln!("demo: building tracer (takes some minutes the first time)");
    let tracer = cargo::tracer(sh, true)?;
    let busybox = setup::static_busybox().context("there is no static busybox")?;
    let dir = tempfile::Builder::new().prefix("tracer-demo-").tempdir()?;
    let config = pod_config("tracer-demo", "demo", &["/bin/sh", "-c", IN_CONTAINER]);
    fs::write(dir.path().join("config.json"), config)?;
    let script = as_root(sh, Path::new("/bin/sh"), &inherited(&["PATH"]))?;
    let script = script.args(["-c", SCRIPT, "demo"]).arg(tracer).arg(busybox).arg(dir.path());
    Ok((script, dir))
}

/// The OCI configuration of a pod's container as containerd writes it, as far as small programs and tracer need it.
pub(crate) fn pod_config(namespace: &str, pod: &str, arguments: &[&str]) -> String {
    let arguments = serde_json::json!(arguments).to_string();
    let config = include_str!("pod.json").replace("[\"@ARGS@\"]", &arguments);
    config.replace("@NAMESPACE@", namespace).replace("@POD@", pod)
}
