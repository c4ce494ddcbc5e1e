//! Building and running the soak test, which is a program of the integration tests.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::{
    artifact, build, check,
    process::cargo_stable,
    setup::{self, Scope},
};

/// Runs it for so many minutes.
pub(crate) fn run(minutes: f64) -> Result<ExitCode> {
    setup::ensure(Scope::Test)?;
    let tracer = build::tracer_binary(true)?;
    let mut cargo = cargo_stable("build");
    cargo.args(["--package", "integration-tests", "--bin", "soak"]);
    let built = artifact::executables(&mut cargo)?.into_iter().find(|binary| binary.name == "soak");
    let soak = built.context("cargo built no binary named soak")?.path;
    let mut command = check::integration_test(&soak, &tracer, None)?;
    let status = command.arg(minutes.to_string()).status().context("starting the soak test")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
