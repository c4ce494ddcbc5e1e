//! Building and running the benchmark, which is a crate of its own: it needs the pinned compiler and a BPF object.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{
    artifact, build, check,
    process::{self, cargo_stable},
    setup::{self, Scope},
};

/// The package, the benchmark itself and what runs in its containers.
const PACKAGE: &str = "tracer-bench";
const BENCH: &str = "tracer-bench";
const LOAD: &str = "tracer-bench-load";
/// Makes `cargo rustc` link the C library into the binary.
const STATIC: &[&str] = &["-C", "target-feature=+crt-static"];
/// As a release, but containers are taken away after a panic.
const PROFILE: &str = "unwinding";

/// Builds everything and measures. Slowness is no failure.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    setup::ensure(Scope::Bench)?;
    if let Err(error) = setup::ensure(Scope::Peers) {
        eprintln!("xtask: measuring without other tracers that are missing: {error:#}");
    }
    let tracer = build::tracer_binary(true)?;
    let status = command(&tracer, arguments)?.status().context("starting the benchmark")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(status.code().and_then(|code| code.try_into().ok()).unwrap_or(1))
    })
}

/// Builds the benchmark, to be run as root: with these arguments, on that tracer.
pub(crate) fn command(tracer: &Path, arguments: &[String]) -> Result<Command> {
    let mut cargo = cargo_stable("build");
    cargo.args(["--profile", PROFILE, "--package", PACKAGE, "--bin", BENCH]);
    let bench = built(&mut cargo, BENCH, &[])?;
    let mut cargo = cargo_stable("rustc");
    cargo.args(["--profile", PROFILE, "--package", PACKAGE, "--bin", LOAD]);
    // Its containers have no libraries. For this binary alone: the rest is the same as for the other one.
    let load = built(&mut cargo, LOAD, STATIC)?;

    // target/release/tracer -> target/bench
    let target = tracer.ancestors().nth(2).context("tracer is not in a target directory")?;
    let mut variables = vec![
        ("TRACER_BIN", OsString::from(tracer)),
        ("TRACER_BENCH_LOAD", load.into()),
        ("TRACER_BENCH_OUTPUT", target.join("bench").into()),
        ("PATH", check::path_with_system_dirs()),
    ];
    variables.extend(build::inherited(&["RUST_BACKTRACE", "TMPDIR"]));
    let mut command = process::as_root(&bench, &variables)?;
    command.args(arguments).current_dir(process::root());
    Ok(command)
}

fn built(cargo: &mut Command, name: &str, flags: &[&str]) -> Result<PathBuf> {
    artifact::named(artifact::executables_with(cargo, flags)?, name)
}
