//! Building and running the benchmark, a crate of its own: it needs the pinned compiler and a BPF object.

use std::{
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::Result;
use xshell::{Cmd, Shell};

use crate::{
    cargo,
    process::{as_root, exit_code, inherited, target_dir},
    setup::{self, Scope},
};

/// Like a release, but the benchmark's containers are removed after a panic.
const PROFILE: &str = "unwinding";

/// Builds everything and measures.
pub(crate) fn run(sh: &Shell, arguments: &[String]) -> Result<ExitCode> {
    setup::ensure(sh, Scope::Bench)?;
    if let Err(error) = setup::ensure(sh, Scope::Peers) {
        eprintln!("xtask: measuring without the other tracers that are missing: {error:#}");
    }
    let tracer = cargo::tracer(sh, true)?;
    let build = cargo::building(sh, "build").args(["--profile", PROFILE, "--package", "tracer-bench"]);
    let bench = cargo::program(&cargo::executables(build)?, "tracer-bench")?;
    let command = command(sh, &tracer, &bench, PROFILE, Path::new("bench"))?;
    Ok(exit_code(Command::from(command.args(arguments)).status()?))
}

/// The benchmark as root, with results in `output` below the target directory. Builds what it runs in containers: they
/// have no libraries, so that program is linked statically.
pub(crate) fn command<'a>(
    sh: &'a Shell,
    tracer: &Path,
    bench: &Path,
    profile: &str,
    output: &Path,
) -> Result<Cmd<'a>> {
    let build = cargo::building(sh, "rustc").args(["--profile", profile, "--package", "tracer-bench-load"]);
    let built = cargo::executables(build.args(["--", "-C", "target-feature=+crt-static"]))?;
    let mut variables = vec![
        ("TRACER_BIN", tracer.into()),
        ("TRACER_BENCH_LOAD", cargo::program(&built, "tracer-bench-load")?.into()),
        ("TRACER_BENCH_OUTPUT", target_dir().join(output).into()),
    ];
    variables.extend(inherited(&["PATH", "RUST_BACKTRACE", "TMPDIR"]));
    as_root(sh, bench, &variables)
}
