//! Building and running `tests/faults.rs` with all that takes long.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::{
    artifact, build, check,
    process::cargo_stable,
    setup::{self, Scope},
};

/// Runs it.
pub(crate) fn run() -> Result<ExitCode> {
    setup::ensure(Scope::Test)?;
    let tracer = build::tracer_binary(true)?;
    let mut cargo = cargo_stable("test");
    cargo.args(["--package", "integration-tests", "--no-run", "--test", "faults"]);
    let built = artifact::executables(&mut cargo)?.into_iter().find(|binary| binary.name == "faults");
    let faults = built.context("cargo built no test named faults")?.path;
    let mut command = check::integration_test(&faults, &tracer, [("TRACER_TEST_SLOW", "1".into())])?;
    let status = command.status().context("starting the tests")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
