//! Programs of the integration tests that take longer than CI has: built and run by themselves.

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{
    artifact, build, check,
    process::cargo_stable,
    setup::{self, Scope},
};

/// `tests/faults.rs`, with all that takes long.
pub(crate) fn faults() -> Result<ExitCode> {
    let mut cargo = cargo_stable("test");
    cargo.args(["--no-run", "--test", "faults"]);
    run(cargo, "faults", Some(("TRACER_TEST_SLOW", "1".into())), None)
}

/// `tests/soak.rs`, for so many minutes.
pub(crate) fn soak(minutes: f64) -> Result<ExitCode> {
    let mut cargo = cargo_stable("build");
    cargo.args(["--bin", "soak"]);
    run(cargo, "soak", None, Some(minutes.to_string()))
}

/// Builds the program of this name, and runs it on the release build.
fn run(
    mut cargo: Command,
    name: &str,
    variable: Option<(&'static str, OsString)>,
    argument: Option<String>,
) -> Result<ExitCode> {
    setup::ensure(Scope::Test)?;
    let tracer = build::both()?;
    let built = artifact::executables(cargo.args(["--package", "integration-tests"]))?;
    let mut command = check::integration_test(&artifact::named(built, name)?, &tracer, variable)?;
    let status = command.args(argument).status().with_context(|| format!("starting {name}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
