//! Fuzzing: `cargo fuzz` builds the targets in `tracer/fuzz`, libFuzzer runs them.

use std::{
    collections::VecDeque,
    env, fmt, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::Mutex,
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    pins,
    process::{self, cargo, root, succeed, target_dir},
    setup::{self, Scope},
};

/// What to fuzz, and how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only these targets: the files in `tracer/fuzz/fuzz_targets`
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 1800, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// How many targets run at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
}

/// An input that takes longer is a finding: in seconds.
const TIMEOUT: u32 = 10;
/// An input that takes more memory is a finding: in MiB.
const MEMORY: u32 = 2048;
/// As the targets call it: the directory that they write their seeds to.
const SEEDS: &str = "TRACER_FUZZ_SEEDS";
/// What the files are called that libFuzzer leaves of an input that is a finding. Slow ones that are none it keeps, too.
const FINDINGS: [&str; 4] = ["crash-", "timeout-", "oom-", "leak-"];

/// Fuzzes and tells what came of it. Findings are failures.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let targets = choose(&available()?, &options.targets)?;
    setup::ensure(Scope::Fuzz)?;
    let place = Place { binaries: build()?, data: target_dir().join("fuzz") };
    let reports = run_all(&place, &targets, options)?;
    print!("{}", table(&reports));
    for Report { target, findings, failed, .. } in &reports {
        for input in findings {
            let (program, input) = (place.binaries.join(target), input.display());
            println!("\n{target}: {input}\n  to see it again: {} {input}", program.display());
        }
        if *failed && findings.is_empty() {
            println!("\n{target} failed: see {}", place.log(target).display());
        }
    }
    Ok(if reports.iter().any(|report| report.failed) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn package() -> PathBuf {
    root().join("tracer/fuzz")
}

/// The targets that there are.
fn available() -> Result<Vec<String>> {
    let dir = package().join("fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Those that were asked for; all if none were.
fn choose(available: &[String], asked: &[String]) -> Result<Vec<String>> {
    if let Some(unknown) = asked.iter().find(|name| !available.contains(name)) {
        bail!("there is no fuzz target {unknown:?}; there are {}", available.join(", "));
    }
    Ok(if asked.is_empty() { available.to_vec() } else { asked.to_vec() })
}

/// Builds all targets with coverage and AddressSanitizer. Returns the directory of their programs.
fn build() -> Result<PathBuf> {
    lock_as_above()?;
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let dir = target_dir().join("fuzz/build");
    let mut command = cargo(pins::NIGHTLY);
    command.args(["fuzz", "build", "--target", &triple, "--target-dir"]).arg(&dir);
    // See `cargo_stable`: cargo-fuzz takes no `--config`.
    command.current_dir(root().join("tracer")).env("CARGO_TERM_QUIET", "true");
    succeed(&mut command)?;
    Ok(dir.join(triple).join("release"))
}

/// The targets' own workspace has the versions that tracer is built with, and what they need besides.
fn lock_as_above() -> Result<()> {
    let (above, own) = (root().join("Cargo.lock"), package().join("Cargo.lock"));
    let changed = |path: &Path| path.metadata().and_then(|file| file.modified());
    let is_newer = match (changed(&above), changed(&own)) {
        (Ok(above), Ok(own)) => above > own,
        _ => true,
    };
    if is_newer {
        fs::copy(&above, &own)
            .with_context(|| format!("copying {} to {}", above.display(), own.display()))?;
    }
    Ok(())
}

/// Where things are.
struct Place {
    /// The targets' programs.
    binaries: PathBuf,
    /// For each target what was found, what it starts from and what it said.
    data: PathBuf,
}

impl Place {
    /// Inputs that reach what others do not: those that a target brings along, and those that were found.
    fn corpus(&self, target: &str) -> PathBuf {
        self.data.join("corpus").join(target)
    }

    /// Inputs for which something does not hold that should.
    fn artifacts(&self, target: &str) -> PathBuf {
        self.data.join("artifacts").join(target)
    }

    fn log(&self, target: &str) -> PathBuf {
        self.data.join(format!("{target}.log"))
    }
}

/// Runs targets, so many at a time.
fn run_all(place: &Place, targets: &[String], options: &Options) -> Result<Vec<Report>> {
    let left = Mutex::new(targets.iter().collect::<VecDeque<_>>());
    let next = || left.lock().ok()?.pop_front();
    let work = || -> Result<Vec<Report>> {
        let mut reports = Vec::new();
        while let Some(target) = next() {
            eprintln!("xtask: fuzzing {target} for {} s", options.seconds);
            reports.push(run_target(place, target, options.seconds)?);
        }
        Ok(reports)
    };
    let mut reports = Vec::new();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(done) => reports.extend(done?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, anyhow::Error>(())
    })?;
    reports.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(reports)
}

fn run_target(place: &Place, target: &str, seconds: u32) -> Result<Report> {
    let (corpus, artifacts, log) = (place.corpus(target), place.artifacts(target), place.log(target));
    for dir in [&corpus, &artifacts] {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let output = fs::File::create(&log).with_context(|| format!("making {}", log.display()))?;
    let mut command = Command::new(place.binaries.join(target));
    command
        .arg(&corpus)
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={TIMEOUT}"))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .arg("-print_final_stats=1")
        .env(SEEDS, &corpus)
        .current_dir(package())
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let name = process::name(&command);
    let status = command.status().with_context(|| format!("starting {name}"))?;
    let said = fs::read(&log).with_context(|| format!("reading {}", log.display()))?;
    let report = Report { failed: !status.success(), ..Report::of(target, &String::from_utf8_lossy(&said)) };
    ensure!(report.failed || report.executions > 0, "{name} executed nothing: see {}", log.display());
    Ok(report)
}

/// What came of a target.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    target: String,
    /// How many inputs were tried.
    executions: u64,
    /// Edges of the program that were reached.
    edges: u64,
    /// Edges, each with how often and by which values: libFuzzer's "features".
    features: u64,
    /// Inputs that were kept for reaching what others had not.
    new: u64,
    /// Inputs for which something does not hold that should.
    findings: Vec<PathBuf>,
    /// Whether the target has not come to its end by itself.
    failed: bool,
}

impl Report {
    /// From what libFuzzer said, such as
    ///
    /// ```text
    /// #4194304 pulse  cov: 925 ft: 3437 corp: 668/91Kb lim: 4096 exec/s: 99864 rss: 441Mb
    /// stat::number_of_executed_units: 4318234
    /// stat::new_units_added:          312
    /// ```
    fn of(target: &str, said: &str) -> Self {
        let mut report = Self { target: target.to_owned(), ..Self::default() };
        for line in said.lines() {
            let after =
                |label: &str| line.split_once(label)?.1.split_whitespace().next()?.parse::<u64>().ok();
            report.edges = after(" cov: ").unwrap_or(report.edges);
            report.features = after(" ft: ").unwrap_or(report.features);
            report.executions = after("stat::number_of_executed_units:").unwrap_or(report.executions);
            report.new = after("stat::new_units_added:").unwrap_or(report.new);
            let input = line.split_once("Test unit written to ").map(|(_, path)| PathBuf::from(path.trim()));
            report.findings.extend(input.filter(|path| is_finding(path)));
        }
        report
    }
}

fn is_finding(input: &Path) -> bool {
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    FINDINGS.iter().any(|prefix| name.starts_with(prefix))
}

fn table(reports: &[Report]) -> String {
    let line = |cells: [&dyn fmt::Display; 6]| {
        let [target, executions, edges, features, new, findings] = cells;
        format!("{target:<14}{executions:>12}{edges:>8}{features:>10}{new:>8}{findings:>10}\n")
    };
    let mut text = line([&"TARGET", &"EXECUTIONS", &"EDGES", &"FEATURES", &"NEW", &"FINDINGS"]);
    for Report { target, executions, edges, features, new, findings, .. } in reports {
        text.push_str(&line([target, executions, edges, features, new, &findings.len()]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
INFO: seed corpus: files: 31 min: 21b max: 21345b total: 321kb rss: 61Mb
#32\tINITED cov: 610 ft: 900 corp: 30/320Kb exec/s: 0 rss: 63Mb
#4096\tNEW    cov: 621 ft: 1203 corp: 41/330Kb lim: 4096 exec/s: 900 rss: 80Mb L: 33/4096 MS: 1 ChangeBit-
Slowest unit: 11 s:
artifact_prefix='/a/'; Test unit written to /a/slow-unit-0123
==1==ERROR: libFuzzer: deadly signal
artifact_prefix='/a/'; Test unit written to /a/crash-4567
stat::number_of_executed_units: 4321
stat::new_units_added:          12
";

    #[test]
    fn a_report_is_read_from_what_libfuzzer_says() {
        let report = Report {
            target: "events".into(),
            executions: 4321,
            edges: 621,
            features: 1203,
            new: 12,
            findings: vec!["/a/crash-4567".into()],
            failed: false,
        };
        assert_eq!(Report::of("events", SAID), report);
        let none = Report { target: "events".into(), ..Report::default() };
        assert_eq!(Report::of("events", "error while loading shared libraries"), none);
        assert_eq!(
            table(&[report]),
            "TARGET          EXECUTIONS   EDGES  FEATURES     NEW  FINDINGS\n\
             events                4321     621      1203      12         1\n"
        );
    }

    #[test]
    fn an_unknown_target_is_an_error_that_lists_all() {
        let available = available().unwrap();
        assert!(available.contains(&"events".to_owned()), "{available:?}");
        assert_eq!(choose(&available, &[]).unwrap(), available);
        assert_eq!(choose(&available, &["events".into()]).unwrap(), ["events"]);
        let error = choose(&available, &["event".into()]).unwrap_err().to_string();
        assert!(error.contains("\"event\"") && error.contains("lifecycle"), "{error}");
    }

    /// `cargo fuzz` builds what the manifest names, not what lies there.
    #[test]
    fn every_target_is_in_the_manifest() {
        let manifest = fs::read_to_string(package().join("Cargo.toml")).unwrap();
        for target in available().unwrap() {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target}");
        }
    }
}
