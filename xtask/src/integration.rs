//! What running the integration tests takes, and those of their programs that take longer than CI has.

use std::{
    ffi::OsString,
    fs::Permissions,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use xshell::{Cmd, Shell};

use crate::{
    cargo::{self, Executable},
    process::{as_root, exit_code, inherited, quietly, root},
    setup::{self, Scope},
};

/// Environment of the tests as root, with that tracer under test.
pub(crate) fn variables(tracer: &Path) -> Vec<(&'static str, OsString)> {
    let mut variables =
        vec![("TRACER_BIN", tracer.into()), ("CARGO_MANIFEST_DIR", root().join("tests").into())];
    if setup::must_run_all() {
        variables.push(("TRACER_REQUIRE_ALL", "1".into()));
    }
    variables.extend(inherited(&[
        "CARGO_HOME",
        "CI",
        "KUBEBUILDER_ASSETS",
        "PATH",
        "RUSTUP_HOME",
        "RUST_BACKTRACE",
        "RUST_LOG",
        "TMPDIR",
        "TRACER_REQUIRE_ALL",
        "TRACER_TEST_KUBECONFIG",
    ]));
    variables
}

/// Compiles the tests' C programs into a directory that every user may read. Dropping it removes them.
pub(crate) fn compile_programs(sh: &Shell, built: &[Executable]) -> Result<TempDir> {
    let directory = tempfile::Builder::new()
        .prefix("tracer-programs-")
        .permissions(Permissions::from_mode(0o755))
        .tempdir()?;
    quietly(sh.cmd(cargo::program(built, "compile-programs")?).arg(directory.path()))?;
    Ok(directory)
}

/// `cargo xtask faults`: `tests/faults.rs` with all that takes long.
pub(crate) fn faults(sh: &Shell) -> Result<ExitCode> {
    let build = cargo::building(sh, "test").args(["--no-run", "--test", "faults"]);
    run(sh, build, "faults", Some(("TRACER_TEST_SLOW", "1".into())), None)
}

/// `cargo xtask soak`: `tests/soak.rs` for that long.
pub(crate) fn soak(sh: &Shell, minutes: u32) -> Result<ExitCode> {
    run(sh, cargo::building(sh, "build").args(["--bin", "soak"]), "soak", None, Some(minutes.to_string()))
}

/// `cargo xtask client-cost`: `tests/client_cost.rs`.
pub(crate) fn client_cost(sh: &Shell) -> Result<ExitCode> {
    let build = cargo::building(sh, "build").args(["--bin", "client-cost", "--bin", "frames"]);
    run(sh, build, "client-cost", None, None)
}

/// Builds a program of the integration tests and runs it with the release build.
fn run(
    sh: &Shell,
    build: Cmd<'_>,
    name: &str,
    variable: Option<(&'static str, OsString)>,
    argument: Option<String>,
) -> Result<ExitCode> {
    setup::ensure(sh, Scope::Test)?;
    let mut variables = variables(&cargo::tracer_and_client(sh)?);
    variables.extend(variable);
    let built = cargo::executables(build.args(["--package", "integration-tests"]))?;
    let program =
        built.iter().find(|executable| executable.name == name).context("cargo did not build it")?;
    let _inside = sh.push_dir(root().join("tests"));
    let status = Command::from(as_root(sh, &program.path, &variables)?.args(argument)).status()?;
    Ok(exit_code(status))
}
