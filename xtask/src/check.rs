//! Everything CI checks, step by step, stopping at the first failure.

use std::{
    env,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    artifact, bench, build, pins,
    process::{self, cargo, cargo_stable, find, is_root, root, succeed},
    setup::{self, Scope},
    tally::Tally,
};

/// One check.
struct Step {
    name: &'static str,
    /// Whether `--quick` has it, too.
    quick: bool,
    run: fn(&mut State) -> Result<()>,
}

/// What later steps take from earlier ones.
#[derive(Default)]
struct State {
    tally: Tally,
    /// The release build.
    tracer: Option<PathBuf>,
    /// The criu that the integration tests are to use.
    criu: Option<PathBuf>,
}

const STEPS: &[Step] = &[
    Step { name: "format", quick: true, run: |_| format() },
    Step { name: "clippy, host crates", quick: true, run: |_| clippy_host() },
    Step { name: "clippy, eBPF crates", quick: true, run: |_| clippy_bpf() },
    Step { name: "dependencies", quick: false, run: |_| dependencies() },
    Step { name: "docs", quick: false, run: |_| docs() },
    Step { name: "unit tests", quick: true, run: unit_tests },
    Step { name: "release build", quick: false, run: release_build },
    Step { name: "integration tests", quick: false, run: integration_tests },
    Step { name: "benchmark, smoke", quick: false, run: benchmark },
];

/// Everything but what builds for the BPF target alone.
const HOST_CRATES: [&str; 7] = [
    "--workspace",
    "--exclude",
    "tracer-ebpf",
    "--exclude",
    "tracer-bench-ebpf",
    "--features",
    "tracer/kubectl",
];

/// Runs the checks and prints what came of them; the last line counts the tests.
pub(crate) fn run(quick: bool) -> Result<ExitCode> {
    if !quick && !is_root() && find("sudo").is_none() {
        bail!("the integration tests load BPF programs: run this as root or with sudo, or with --quick");
    }
    setup::ensure(if quick { Scope::Quick } else { Scope::Test })?;

    let mut state = State { criu: if quick { None } else { setup::criu() }, ..State::default() };
    let mut rows = Vec::new();
    let mut outcome = Ok(());
    for step in STEPS.iter().filter(|step| step.quick || !quick) {
        eprintln!("\nxtask: {} …", step.name);
        let start = Instant::now();
        outcome = (step.run)(&mut state);
        rows.push((step.name, outcome.is_ok(), start.elapsed()));
        if outcome.is_err() {
            break;
        }
        eprintln!("xtask: {} ok, {}", step.name, seconds(start.elapsed()));
    }

    print!("\n{}", table(&rows));
    if let Err(error) = &outcome {
        eprintln!("\nerror: {error:#}");
    }
    if !state.tally.is_empty() {
        println!("\n{}", state.tally);
    }
    Ok(if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(rows: &[(&str, bool, Duration)]) -> String {
    let line = |&(name, ok, time): &(&str, bool, Duration)| {
        format!("{name:<22}{:<8}{:>9}\n", if ok { "ok" } else { "FAILED" }, seconds(time))
    };
    rows.iter().map(line).collect()
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn format() -> Result<()> {
    succeed(cargo(pins::STABLE).args(["fmt", "--all", "--check"]))
        .with_context(|| format!("`cargo +{} fmt --all` puts it right", pins::STABLE))
}

fn clippy_host() -> Result<()> {
    succeed(cargo_stable("clippy").args(HOST_CRATES).args(["--all-targets", "--", "-D", "warnings"]))
}

fn clippy_bpf() -> Result<()> {
    // As aya-build does when `tracer/build.rs` builds it.
    let target = if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };
    let flags = format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH);
    succeed(
        cargo(pins::NIGHTLY)
            .args(["clippy", "--package", "tracer-ebpf", "--package", "tracer-bench-ebpf"])
            .args(["--target", target, "-Z", "build-std=core"])
            .args(["--", "-D", "warnings"])
            .env("CARGO_ENCODED_RUSTFLAGS", flags),
    )
}

/// Advisories are left to the workflow: their database is not part of the repository and changes by the day.
fn dependencies() -> Result<()> {
    succeed(cargo(pins::STABLE).args([
        "deny",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]))
}

fn docs() -> Result<()> {
    succeed(cargo_stable("doc").args(HOST_CRATES).arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings"))
}

fn unit_tests(state: &mut State) -> Result<()> {
    let mut test = cargo_stable("test");
    test.arg("--no-fail-fast").args(HOST_CRATES).args(["--exclude", "integration-tests"]);
    state.tally.run(&mut test, io::stdout())
}

fn release_build(state: &mut State) -> Result<()> {
    state.tracer = Some(build::both()?);
    Ok(())
}

/// Builds the tests as the user and runs them as root, one binary after the other as `cargo test` would.
fn integration_tests(state: &mut State) -> Result<()> {
    let tracer = state.tracer.as_deref().context("there is no release build to test")?;
    let mut compile = cargo_stable("test");
    compile.args(["--package", "integration-tests", "--no-run"]);
    let mut tests = artifact::executables(&mut compile)?;
    tests.retain(|binary| binary.test);
    tests.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(!tests.is_empty(), "the package integration-tests has no tests");
    let criu = state.criu.as_ref().map(|criu| ("TRACER_TEST_CRIU", criu.into()));
    let mut failed = Vec::new();
    for test in tests {
        eprintln!("xtask: running {}", test.name);
        let mut command = integration_test(&test.path, tracer, criu.clone())?;
        if let Err(error) = state.tally.run(&mut command, io::stdout()) {
            eprintln!("error: {error:#}");
            failed.push(test.name);
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// That every part of the benchmark works; the peers are not installed for it.
fn benchmark(state: &mut State) -> Result<()> {
    let tracer = state.tracer.as_deref().context("there is no release build to measure")?;
    succeed(&mut bench::command(tracer, &["--smoke".into()])?)
}

/// A program of the integration tests, to be run as root on that tracer.
pub(crate) fn integration_test(
    test: &Path,
    tracer: &Path,
    further: impl IntoIterator<Item = (&'static str, OsString)>,
) -> Result<Command> {
    let package = root().join("tests");
    let mut variables = vec![
        ("TRACER_BIN", OsString::from(tracer)),
        ("CARGO_MANIFEST_DIR", OsString::from(&package)),
        ("PATH", path_with_system_dirs()),
    ];
    if must_run_all(env::var_os("CI"), setup::can_install_everything()) {
        variables.push(("TRACER_REQUIRE_ALL", OsString::from("1")));
    }
    variables.extend(further);
    variables.extend(build::inherited(&["CI", "RUST_BACKTRACE", "RUST_LOG", "TMPDIR", "TRACER_REQUIRE_ALL"]));
    let mut command = process::as_root(test, &variables)?;
    command.current_dir(package);
    Ok(command)
}

/// Whether a test that cannot run is a failure: in CI, and wherever setup can install what tests need.
fn must_run_all(ci: Option<OsString>, can_install: bool) -> bool {
    ci.is_some_and(|value| value == "true") || can_install
}

/// `PATH` with the directories of root's programs, where runc and containerd are.
pub(crate) fn path_with_system_dirs() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_needs_no_release_build_and_no_root() {
        let quick: Vec<_> = STEPS.iter().filter(|step| step.quick).map(|step| step.name).collect();
        assert_eq!(quick, ["format", "clippy, host crates", "clippy, eBPF crates", "unit tests"]);
    }

    #[test]
    fn table_lines_up() {
        let rows =
            [("format", true, Duration::from_millis(340)), ("unit tests", false, Duration::from_secs(61))];
        assert_eq!(
            table(&rows),
            "format                ok          0.3 s\nunit tests            FAILED     61.0 s\n"
        );
    }

    #[test]
    fn skipping_is_allowed_only_where_nothing_can_be_installed() {
        assert!(must_run_all(Some("true".into()), false));
        assert!(must_run_all(None, true));
        assert!(!must_run_all(None, false));
        assert!(!must_run_all(Some("false".into()), false));
    }
}
