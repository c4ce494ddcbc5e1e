//! `cargo xtask fuzz`: cargo-fuzz builds the targets in `tracer/fuzz`, libFuzzer runs them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::Mutex,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use xshell::{Shell, cmd};

use crate::{
    pins::NIGHTLY,
    process::{root, target_dir},
    setup::{self, Scope},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only these targets: the files in `tracer/fuzz/fuzz_targets`
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Run each target for this long
    #[arg(long, value_name = "N", default_value_t = 1800, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Run this many targets at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
}

/// Inputs that take longer (seconds) or more memory (MiB) are findings.
const LIMITS: [&str; 2] = ["-timeout=10", "-rss_limit_mb=2048"];
/// File names of findings. libFuzzer keeps slow inputs that are none, too.
const FINDINGS: [&str; 4] = ["crash-", "timeout-", "oom-", "leak-"];

/// Fuzzes and prints a table. Findings are failures.
pub(crate) fn run(sh: &Shell, options: &Options) -> Result<ExitCode> {
    let available = available(sh)?;
    for name in &options.targets {
        let all = available.join(", ");
        ensure!(available.contains(name), "unknown fuzz target {name:?}; expected one of: {all}");
    }
    let targets = if options.targets.is_empty() { available } else { options.targets.clone() };
    setup::ensure(sh, Scope::Fuzz)?;
    let programs = build(sh)?;

    let queue = Mutex::new(targets.into_iter());
    let results = Mutex::new(Vec::new());
    let work = || {
        while let Some(target) = queue.lock().ok().and_then(|mut queue| queue.next()) {
            eprintln!("xtask: fuzzing {target} for {} s", options.seconds);
            let result = fuzz(&programs, &target, options.seconds);
            if let Ok(mut results) = results.lock() {
                results.push((target, result));
            }
        }
    };
    thread::scope(|scope| (0..options.jobs).for_each(|_| drop(scope.spawn(work))));

    let mut results = results.into_inner()?;
    results.sort_by(|a, b| a.0.cmp(&b.0));
    println!("{:<14}{:>12}  RESULT", "TARGET", "EXECUTIONS");
    let mut passed = true;
    for (target, result) in results {
        let Fuzzed { executions, findings, ok } = result?;
        let log = data().join(format!("{target}.log"));
        let text = if ok { "ok".to_owned() } else { format!("FAILED: see {}", log.display()) };
        println!("{target:<14}{executions:>12}  {text}");
        for input in &findings {
            println!("  to see it again: {} {}", programs.join(&target).display(), input.display());
        }
        passed &= ok;
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn package() -> PathBuf {
    root().join("tracer/fuzz")
}

/// For each target the corpus, the findings and the log.
fn data() -> PathBuf {
    target_dir().join("fuzz")
}

/// All targets, by name.
fn available(sh: &Shell) -> Result<Vec<String>> {
    let files = sh.read_dir(package().join("fuzz_targets"))?;
    let names = files.iter().filter_map(|file| file.file_name()?.to_str()?.strip_suffix(".rs"));
    Ok(names.map(str::to_owned).collect())
}

/// Builds all targets with coverage and AddressSanitizer: the directory of their programs.
fn build(sh: &Shell) -> Result<PathBuf> {
    // The targets' own workspace gets the versions that tracer is built with.
    let (lock, own) = (root().join("Cargo.lock"), package().join("Cargo.lock"));
    let changed = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    if changed(&lock) > changed(&own) {
        fs::copy(&lock, &own).with_context(|| format!("cannot write {}", own.display()))?;
    }
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let output = data().join("build");
    let _inside = sh.push_dir(root().join("tracer"));
    let build = cmd!(sh, "rustup run {NIGHTLY} cargo fuzz build --target {triple} --target-dir {output}");
    // See `cargo::cargo`: cargo-fuzz takes no `--config`.
    build.env("CARGO_TERM_QUIET", "true").quiet().run()?;
    Ok(output.join(triple).join("release"))
}

/// The result of a target.
struct Fuzzed {
    executions: u64,
    /// Files of inputs that are findings.
    findings: Vec<PathBuf>,
    ok: bool,
}

fn fuzz(programs: &Path, target: &str, seconds: u32) -> Result<Fuzzed> {
    let (corpus, artifacts) = (data().join("corpus").join(target), data().join("artifacts").join(target));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    let log = data().join(format!("{target}.log"));
    let output = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let status = Command::new(programs.join(target))
        .arg(&corpus)
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(format!("-max_total_time={seconds}"))
        .args(LIMITS)
        .arg("-print_final_stats=1")
        // The target writes its seeds there.
        .env("TRACER_FUZZ_SEEDS", &corpus)
        .current_dir(package())
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()
        .with_context(|| format!("cannot start {target}"))?;
    let fuzzed = Fuzzed { ok: status.success(), ..parse(&String::from_utf8_lossy(&fs::read(&log)?)) };
    ensure!(!fuzzed.ok || fuzzed.executions > 0, "{target} executed nothing: see {}", log.display());
    Ok(fuzzed)
}

/// Reads libFuzzer's output.
fn parse(output: &str) -> Fuzzed {
    let executions = output.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let inputs = output.lines().filter_map(|line| line.split_once("Test unit written to "));
    let findings = inputs.map(|(_, path)| PathBuf::from(path.trim())).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        FINDINGS.iter().any(|prefix| name.starts_with(prefix))
    });
    Fuzzed {
        executions: executions.and_then(|number| number.trim().parse().ok()).unwrap_or(0),
        findings: findings.collect(),
        ok: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_inputs_are_no_findings() {
        let fuzzed = parse(
            "#32\tINITED cov: 610 ft: 900 corp: 30/320Kb exec/s: 0 rss: 63Mb\n\
             artifact_prefix='/a/'; Test unit written to /a/slow-unit-0123\n\
             artifact_prefix='/a/'; Test unit written to /a/crash-4567\n\
             stat::number_of_executed_units: 4321\n",
        );
        assert_eq!((fuzzed.executions, fuzzed.findings), (4321, vec![PathBuf::from("/a/crash-4567")]));
    }

    /// cargo-fuzz builds what the manifest lists, not what is in the directory.
    #[test]
    fn every_target_is_in_the_manifest() {
        let manifest = fs::read_to_string(package().join("Cargo.toml")).unwrap();
        for target in available(&crate::process::shell().unwrap()).unwrap() {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target}");
        }
    }
}
