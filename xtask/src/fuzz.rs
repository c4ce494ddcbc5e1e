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
    let targets = choose(&available(sh)?, &options.targets)?;
    setup::ensure(sh, Scope::Fuzz)?;
    let programs = build(sh)?;

    let queue = Mutex::new(targets.into_iter());
    let reports = Mutex::new(Vec::new());
    let work = || loop {
        let next = queue.lock().ok().and_then(|mut queue| queue.next());
        let Some(target) = next else { return };
        eprintln!("xtask: fuzzing {target} for {} s", options.seconds);
        let report = fuzz(&programs, &target, options.seconds);
        reports.lock().expect("no thread panics with it").push((target, report));
    };
    thread::scope(|scope| (0..options.jobs).for_each(|_| drop(scope.spawn(work))));
    let mut reports = reports.into_inner()?;
    reports.sort_by(|a, b| a.0.cmp(&b.0));

    println!("{}", row("TARGET", ["EXECUTIONS", "EDGES", "FEATURES", "NEW", "FINDINGS"]));
    let mut failed = false;
    let mut details = String::new();
    for (target, report) in reports {
        let Report { executions, edges, features, new, findings, ok } = report?;
        let findings_count = findings.len() as u64;
        let counts = [executions, edges, features, new, findings_count].map(|count| count.to_string());
        println!("{}", row(&target, counts.each_ref().map(String::as_str)));
        for input in &findings {
            let (program, input) = (programs.join(&target), input.display());
            details += &format!("\n{target}: {input}\n  to see it again: {} {input}\n", program.display());
        }
        if !ok && findings.is_empty() {
            details +=
                &format!("\n{target} failed: see {}\n", data().join(format!("{target}.log")).display());
        }
        failed |= !ok;
    }
    print!("{details}");
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn row(target: &str, [executions, edges, features, new, findings]: [&str; 5]) -> String {
    format!("{target:<14}{executions:>12}{edges:>8}{features:>10}{new:>8}{findings:>10}")
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

fn choose(available: &[String], selected: &[String]) -> Result<Vec<String>> {
    for name in selected {
        let all = available.join(", ");
        ensure!(available.contains(name), "unknown fuzz target {name:?}; expected one of: {all}");
    }
    Ok(if selected.is_empty() { available.to_vec() } else { selected.to_vec() })
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

fn fuzz(programs: &Path, target: &str, seconds: u32) -> Result<Report> {
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
    let report = Report { ok: status.success(), ..Report::parse(&String::from_utf8_lossy(&fs::read(&log)?)) };
    ensure!(!report.ok || report.executions > 0, "{target} executed nothing: see {}", log.display());
    Ok(report)
}

/// The result of a target.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    executions: u64,
    /// Edges of the program that were reached.
    edges: u64,
    /// Edges, combined with how often and by which values: libFuzzer's "features".
    features: u64,
    /// Inputs that were kept because they reached something new.
    new: u64,
    findings: Vec<PathBuf>,
    ok: bool,
}

impl Report {
    /// Reads libFuzzer's output, such as
    ///
    /// ```text
    /// #4194304 pulse  cov: 925 ft: 3437 corp: 668/91Kb lim: 4096 exec/s: 99864 rss: 441Mb
    /// stat::number_of_executed_units: 4318234
    /// stat::new_units_added:          312
    /// ```
    fn parse(output: &str) -> Self {
        let mut report = Self::default();
        for line in output.lines() {
            let after =
                |label: &str| line.split_once(label)?.1.split_whitespace().next()?.parse::<u64>().ok();
            report.edges = after(" cov: ").unwrap_or(report.edges);
            report.features = after(" ft: ").unwrap_or(report.features);
            report.executions = after("stat::number_of_executed_units:").unwrap_or(report.executions);
            report.new = after("stat::new_units_added:").unwrap_or(report.new);
            let input = line.split_once("Test unit written to ").map(|(_, path)| PathBuf::from(path.trim()));
            report.findings.extend(input.filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                FINDINGS.iter().any(|prefix| name.starts_with(prefix))
            }));
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libfuzzers_output_is_understood() {
        let output = "\
INFO: seed corpus: files: 31 min: 21b max: 21345b total: 321kb rss: 61Mb
#32\tINITED cov: 610 ft: 900 corp: 30/320Kb exec/s: 0 rss: 63Mb
#4096\tNEW    cov: 621 ft: 1203 corp: 41/330Kb lim: 4096 exec/s: 900 rss: 80Mb L: 33/4096 MS: 1 ChangeBit-
artifact_prefix='/a/'; Test unit written to /a/slow-unit-0123
artifact_prefix='/a/'; Test unit written to /a/crash-4567
stat::number_of_executed_units: 4321
stat::new_units_added:          12
";
        let report = Report {
            executions: 4321,
            edges: 621,
            features: 1203,
            new: 12,
            findings: vec!["/a/crash-4567".into()],
            ok: false,
        };
        assert_eq!(Report::parse(output), report);
    }

    /// cargo-fuzz builds what the manifest lists, not what is in the directory.
    #[test]
    fn every_target_is_in_the_manifest() {
        let manifest = fs::read_to_string(package().join("Cargo.toml")).unwrap();
        let available = available(&crate::process::shell().unwrap()).unwrap();
        assert!(choose(&available, &["event".into()]).is_err());
        for target in choose(&available, &[]).unwrap() {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target}");
        }
    }
}
