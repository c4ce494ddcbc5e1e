//! `cargo xtask test`: everything CI checks, step by step, up to the first failure.
//!
//! Each dependency is checked once, for clippy and rustdoc, and compiled once, for everything that is run. That takes one
//! profile (`dev`) and one selection of crates and features ([`HOST_CRATES`]) for all steps.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::{
    bench,
    cargo::{self, Executable, HOST_CRATES, cargo},
    criu, integration, layers,
    pins::{NIGHTLY, STABLE},
    process::{as_root, is_root, root},
    setup::{self, Scope},
    tally::Tally,
};

/// One check.
struct Step {
    name: &'static str,
    /// Whether `--quick` includes it.
    quick: bool,
    run: fn(&Shell, &mut State) -> Result<()>,
}

const STEPS: [Step; 10] = [
    Step { name: "format", quick: true, run: |sh, _| format(sh) },
    Step { name: "layers", quick: true, run: |_, _| layers::check() },
    Step { name: "clippy, host crates", quick: true, run: |sh, _| clippy_host(sh) },
    Step { name: "clippy, eBPF crates", quick: true, run: |sh, _| clippy_bpf(sh) },
    Step { name: "dependencies", quick: false, run: |sh, _| dependencies(sh) },
    Step { name: "docs", quick: false, run: |sh, _| docs(sh) },
    Step { name: "build", quick: true, run: build },
    Step { name: "unit tests", quick: true, run: unit_tests },
    Step { name: "integration tests", quick: false, run: integration_tests },
    Step { name: "benchmark, smoke", quick: false, run: benchmark },
];

/// What later steps need from earlier ones.
#[derive(Default)]
struct State {
    tally: Tally,
    built: Vec<Executable>,
}

/// Runs the checks and prints a table of them; the last line counts the tests.
pub(crate) fn run(sh: &Shell, quick: bool) -> Result<ExitCode> {
    if !quick && !is_root() && which::which("sudo").is_err() {
        bail!("the integration tests load BPF programs: run this as root or with sudo, or with --quick");
    }
    setup::ensure(sh, if quick { Scope::Quick } else { Scope::Test })?;

    let mut state = State::default();
    let mut table = String::new();
    let mut outcome = Ok(());
    for step in STEPS.iter().filter(|step| step.quick || !quick) {
        eprintln!("\nxtask: {} …", step.name);
        let start = Instant::now();
        outcome = (step.run)(sh, &mut state);
        table += &row(step.name, outcome.is_ok(), start.elapsed());
        if outcome.is_err() {
            break;
        }
    }

    print!("\n{table}");
    if let Err(error) = &outcome {
        eprintln!("\nerror: {error:#}");
    }
    if !state.tally.is_empty() {
        println!("\n{}", state.tally);
    }
    Ok(if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn row(name: &str, ok: bool, time: Duration) -> String {
    format!("{name:<22}{:<8}{:>7.1} s\n", if ok { "ok" } else { "FAILED" }, time.as_secs_f64())
}

fn format(sh: &Shell) -> Result<()> {
    let run = cmd!(sh, "rustup run {STABLE} cargo fmt --all --check").quiet().run();
    run.with_context(|| format!("`cargo +{STABLE} fmt --all` formats the code"))?;
    // Modules that a macro declares are unknown to cargo fmt.
    let mut files = Vec::new();
    for directory in ["tracer-common/src/kinds", "tracer-ebpf/src/kinds"] {
        files.extend(sh.read_dir(root().join(directory))?);
    }
    let run = cmd!(sh, "rustup run {STABLE} rustfmt --edition 2024 --check {files...}").quiet().run();
    run.with_context(|| {
        format!("`rustup run {STABLE} rustfmt --edition 2024 */src/kinds/*.rs` formats the kinds")
    })
}

fn clippy_host(sh: &Shell) -> Result<()> {
    let command = cargo(sh, "clippy").args(HOST_CRATES).arg("--all-targets").args(["--", "-D", "warnings"]);
    Ok(command.quiet().run()?)
}

/// As aya-build compiles them when `tracer/build.rs` builds the BPF object.
fn clippy_bpf(sh: &Shell) -> Result<()> {
    let target = if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };
    let flags = format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH);
    let command = cmd!(
        sh,
        "rustup run {NIGHTLY} cargo clippy --package tracer-ebpf --package tracer-bench-ebpf --target {target}
         -Z build-std=core -- -D warnings"
    );
    Ok(command.env("CARGO_ENCODED_RUSTFLAGS", flags).quiet().run()?)
}

/// Advisories are left to the workflow: their database is not part of the repository and changes by the day.
fn dependencies(sh: &Shell) -> Result<()> {
    let checks = ["check", "--hide-inclusion-graph", "bans", "licenses", "sources"];
    Ok(cmd!(sh, "rustup run {STABLE} cargo deny {checks...}").quiet().run()?)
}

fn docs(sh: &Shell) -> Result<()> {
    let command = cargo(sh, "doc").args(HOST_CRATES).arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings");
    Ok(command.quiet().run()?)
}

/// Builds all programs and test binaries, and tells cargo-nextest about them.
fn build(sh: &Shell, state: &mut State) -> Result<()> {
    let command = cargo::building(sh, "build").args(HOST_CRATES).args(["--bins", "--tests"]);
    state.built = cargo::executables(command)?;
    fs::create_dir_all(store().join("unit"))?;
    fs::create_dir_all(store().join("integration"))?;
    let list = ["--list-type", "binaries-only", "--message-format", "json"];
    let binaries = cargo(sh, "nextest list").args(list).args(HOST_CRATES).quiet().read()?;
    fs::write(store().join("binaries.json"), binaries)?;
    let metadata = cmd!(sh, "rustup run {STABLE} cargo metadata --format-version 1").quiet().read()?;
    Ok(fs::write(store().join("cargo.json"), metadata)?)
}

fn unit_tests(sh: &Shell, state: &mut State) -> Result<()> {
    let nextest = which::which("cargo-nextest")?;
    nextest_run(state, "unit", sh.cmd(nextest).quiet())?;
    // cargo-nextest does not run the examples in documentation.
    let output = cargo(sh, "test").arg("--doc").args(HOST_CRATES).quiet().read()?;
    for line in output.lines() {
        state.tally.add_line(line);
    }
    Ok(())
}

/// The tests were built as the user and run as root.
fn integration_tests(sh: &Shell, state: &mut State) -> Result<()> {
    let mut variables = integration::variables(&cargo::program(&state.built, "tracer")?);
    variables.extend(criu::prepare(sh).map(|criu| ("TRACER_TEST_CRIU", criu.into())));
    // Once for all test processes. Some run the programs as other users.
    let programs = integration::compile_programs(sh, &state.built)?;
    variables.push(("TRACER_TEST_PROGRAMS", programs.path().into()));
    let nextest = as_root(sh, &which::which("cargo-nextest")?, &variables)?;
    nextest_run(state, "integration", nextest)
}

/// Runs the tests of a profile in `.config/nextest.toml` and counts them.
fn nextest_run(state: &mut State, profile: &str, nextest: xshell::Cmd<'_>) -> Result<()> {
    let report = store().join(profile).join("junit.xml");
    if report.exists() {
        fs::remove_file(&report)?;
    }
    let run = nextest
        .args(["nextest", "run", "--profile", profile, "--cargo-metadata"])
        .arg(store().join("cargo.json"))
        .arg("--binaries-metadata")
        .arg(store().join("binaries.json"))
        .run();
    let tally = Tally::of_report(&report);
    state.tally += tally.as_ref().copied().unwrap_or_default();
    ensure!(run.is_ok(), "tests failed; see above, or {}", report.display());
    tally.map(drop)
}

/// Where cargo-nextest keeps its reports: `store.dir` in `.config/nextest.toml`.
fn store() -> PathBuf {
    root().join("target/nextest")
}

/// Whether every part of the benchmark works; what it compares with is not installed for that.
fn benchmark(sh: &Shell, state: &mut State) -> Result<()> {
    let [tracer, bench] = ["tracer", "tracer-bench"].map(|name| cargo::program(&state.built, name));
    let command = bench::command(sh, &tracer?, &bench?, "dev", Path::new("bench-smoke"))?;
    Ok(command.arg("--smoke").run()?)
}
