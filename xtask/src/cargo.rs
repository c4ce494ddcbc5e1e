//! Calling cargo, and finding what it built.

use std::{
    io::BufReader,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use cargo_metadata::Message;
use xshell::{Cmd, Shell, cmd};

use crate::{
    pins::STABLE,
    process::{as_root, inherited, replace_with},
};

/// All crates of the workspace that are built for this machine, with all their features. Every step of `cargo xtask
/// test` uses this selection: with another one cargo unifies other features, and compiles the dependencies again.
pub(crate) const HOST_CRATES: [&str; 7] = [
    "--workspace",
    "--exclude",
    "tracer-ebpf",
    "--exclude",
    "tracer-bench-ebpf",
    "--features",
    "tracer/kubectl,tracer/testing",
];

/// An executable that cargo built.
pub(crate) struct Executable {
    pub(crate) name: String,
    /// Whether it is a test binary.
    pub(crate) test: bool,
    pub(crate) path: PathBuf,
}

/// `cargo SUBCOMMAND` of the pinned toolchain.
///
/// `tracer/build.rs` starts another cargo, which this keeps quiet: otherwise all its output comes back as warnings of
/// the build script, at every build again.
pub(crate) fn cargo<'a>(sh: &'a Shell, subcommand: &str) -> Cmd<'a> {
    let quiet = "env.CARGO_TERM_QUIET=\"true\"";
    let subcommand = subcommand.split(' ');
    cmd!(sh, "rustup run {STABLE} cargo {subcommand...} --config {quiet}")
}

/// `cargo SUBCOMMAND` for [`executables`].
pub(crate) fn building<'a>(sh: &'a Shell, subcommand: &str) -> Cmd<'a> {
    cargo(sh, subcommand).arg("--message-format=json-render-diagnostics")
}

/// Runs a [`building`] command and returns the executables it made. Asking cargo is the only way that works for test
/// binaries, `--target` and every setting of the target directory.
pub(crate) fn executables(command: Cmd<'_>) -> Result<Vec<Executable>> {
    let name = command.to_string();
    let mut child = Command::from(command)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let stdout = child.stdout.take().context("cargo has no stdout")?;
    let mut found = Vec::new();
    for message in Message::parse_stream(BufReader::new(stdout)) {
        let Message::CompilerArtifact(artifact) = message? else { continue };
        found.extend(artifact.executable.map(|path| Executable {
            name: artifact.target.name,
            test: artifact.profile.test,
            path: path.into(),
        }));
    }
    let status = child.wait()?;
    ensure!(status.success(), "{name} failed ({status})");
    Ok(found)
}

/// The program of that name among what was built.
pub(crate) fn program(built: &[Executable], name: &str) -> Result<PathBuf> {
    let found = built.iter().find(|executable| executable.name == name && !executable.test);
    Ok(found.with_context(|| format!("cargo built no program named {name}"))?.path.clone())
}

/// Builds the package `tracer`, with further arguments for cargo.
pub(crate) fn build(sh: &Shell, release: bool, further: &[String]) -> Result<Vec<Executable>> {
    let profile = release.then_some("--release");
    executables(building(sh, "build").args(["--package", "tracer"]).args(profile).args(further))
}

/// Builds the binary `tracer`.
pub(crate) fn tracer(sh: &Shell, release: bool) -> Result<PathBuf> {
    program(&build(sh, release, &[])?, "tracer")
}

/// Builds `tracer` and, beside it, `kubectl-tracer`: the path of the former.
pub(crate) fn tracer_and_client(sh: &Shell) -> Result<PathBuf> {
    program(&build(sh, true, &["--features".to_owned(), "kubectl".to_owned()])?, "tracer")
}

/// `cargo xtask run`: becomes the `tracer` that it has built.
pub(crate) fn run(sh: &Shell, release: bool, arguments: &[String]) -> Result<ExitCode> {
    let variables = inherited(&["RUST_LOG", "RUST_BACKTRACE", "NO_COLOR", "TERM"]);
    replace_with(as_root(sh, &tracer(sh, release)?, &variables)?.args(arguments))
}
