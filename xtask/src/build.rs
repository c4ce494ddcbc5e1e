//! Building `tracer` and running what was built.

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};

use crate::{
    artifact,
    process::{self, cargo_stable},
};

/// Builds the package `tracer` and tells where the binary `tracer` is. There is none where `extra` (further
/// arguments for cargo) asks for something else.
pub(crate) fn tracer(release: bool, extra: &[String]) -> Result<Option<PathBuf>> {
    let mut command = cargo_stable("build");
    command.args(["--package", "tracer"]);
    if release {
        command.arg("--release");
    }
    let built = artifact::executables(command.args(extra))?;
    Ok(built.into_iter().find(|binary| binary.name == "tracer" && !binary.test).map(|binary| binary.path))
}

/// As [`tracer`], where the binary is what is wanted.
pub(crate) fn tracer_binary(release: bool) -> Result<PathBuf> {
    tracer(release, &[])?.context("cargo built no binary named tracer")
}

/// The release builds of both programs, as the tests want them: `kubectl-tracer` is beside the `tracer` that is told.
pub(crate) fn both() -> Result<PathBuf> {
    tracer(true, &["--features".into(), "kubectl".into()])?.context("cargo built no binary named tracer")
}

/// Builds `kubectl-tracer`, which takes a feature of the package.
pub(crate) fn kubectl_tracer(release: bool) -> Result<PathBuf> {
    let name = "kubectl-tracer";
    let mut command = cargo_stable("build");
    command.args(["--package", "tracer", "--features", "kubectl", "--bin", name]);
    if release {
        command.arg("--release");
    }
    artifact::named(artifact::executables(&mut command)?, name)
}

/// Builds `tracer` and becomes it, so that signals, standard streams and the exit code are its own.
pub(crate) fn run(release: bool, args: &[String]) -> Result<ExitCode> {
    let binary = tracer_binary(release)?;
    let error = process::as_root(&binary, &inherited(&["RUST_LOG", "RUST_BACKTRACE", "NO_COLOR", "TERM"]))?
        .args(args)
        .exec();
    Err(error).with_context(|| format!("starting {}", Path::new(&binary).display()))
}

/// Those of the named variables that are set.
pub(crate) fn inherited(names: &[&'static str]) -> Vec<(&'static str, OsString)> {
    names.iter().filter_map(|&name| Some((name, env::var_os(name)?))).collect()
}
