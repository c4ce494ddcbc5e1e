//! tracer on other kernels: guests in QEMU that run the integration tests.
//!
//! A guest has the static tracer, the tests linked statically, their C programs, and this machine's container runtimes
//! with their libraries. It boots in some seconds and runs steps, whose output comes back over a serial line
//! ([`report`]). Emulation makes everything some twenty times slower: the tests' deadlines are longer for it.

mod guest;
mod icount;
mod image;
mod kernel;
mod report;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    artifact,
    dist::{self, Target},
    process::{self, cargo_stable},
    setup::{self, Scope},
    tally::Tally,
};
use guest::Guest;
use image::Image;
use kernel::{Cgroups, KERNELS, Kernel};
use report::{Report, Step};

/// The test binaries that are run unless told: those for which runc and crun suffice, and which say something about
/// the kernel.
const SUITES: [&str; 5] = ["open", "exec", "identity", "lifecycle", "list"];

/// The values of `trace open --hook`, each of which is tested.
const HOOKS: [&str; 2] = ["sys-exit", "fexit"];

/// By what factor the tests' deadlines are longer in a guest.
const SLOWNESS: u32 = 10;
/// How long one step may take, in seconds.
const STEP_LIMIT: u32 = 1800;
/// How long a guest may take for all of its steps.
const GUEST_LIMIT: Duration = Duration::from_secs(2 * 60 * 60);

/// What to run where.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    instead: Option<Instead>,
    /// The kernels, by version; all unless told
    #[arg(value_name = "KERNEL")]
    kernels: Vec<String>,
    /// Boot this kernel image, alone or besides
    #[arg(long, value_name = "FILE")]
    kernel: Vec<PathBuf>,
    /// Fetch the kernels anew: the newest that Debian has
    #[arg(long)]
    update: bool,
    /// The test binaries to run
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_values = SUITES)]
    tests: Vec<String>,
    /// Only tests whose names contain this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Have `trace open` use these hooks, one after the other
    #[arg(long, value_name = "HOOK", value_delimiter = ',', default_values = HOOKS)]
    hook: Vec<String>,
}

/// What else a guest can do.
#[derive(Debug, clap::Subcommand)]
enum Instead {
    /// Count the instructions that tracing adds to an operation
    Icount(icount::Options),
}

/// A kernel to boot.
struct Boot {
    name: String,
    file: PathBuf,
    cgroups: Cgroups,
}

/// Runs the tests on each kernel and prints what came of them.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if let Some(Instead::Icount(options)) = &options.instead {
        print!("{}", icount::run(options)?);
        return Ok(ExitCode::SUCCESS);
    }
    setup::ensure(Scope::Vm)?;
    let boots = options.boots()?;
    let scratch = tempfile::tempdir()?;
    let image = scratch.path().join("image");
    make_image(options, scratch.path(), &image)?;
    let logs = logs();
    let mut rows = Vec::new();
    for boot in &boots {
        let guest = Guest {
            name: &boot.name,
            kernel: &boot.file,
            image: &image,
            cgroups: boot.cgroups,
            icount: None,
            limit: GUEST_LIMIT,
            logs: &logs,
        };
        let began = Instant::now();
        let report = guest.run();
        rows.extend(judge(&boot.name, report, began.elapsed()));
    }
    print!("\n{}", table(&rows));
    println!("\nlogs: {}", logs.display());
    Ok(if rows.iter().all(|row| row.passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where the guests' output goes.
fn logs() -> PathBuf {
    process::target_dir().join("vm")
}

impl Options {
    fn boots(&self) -> Result<Vec<Boot>> {
        let named: Vec<&Kernel> = if self.kernels.is_empty() && self.kernel.is_empty() {
            KERNELS.iter().collect()
        } else {
            self.kernels.iter().map(|name| Kernel::of(name)).collect::<Result<_>>()?
        };
        let mut boots = Vec::new();
        for kernel in named {
            let file = kernel.file(self.update)?;
            boots.push(Boot { name: kernel.name.to_owned(), file, cgroups: kernel.cgroups });
        }
        for file in &self.kernel {
            ensure!(file.is_file(), "there is no kernel {}", file.display());
            let name = file.file_name().map_or_else(|| "kernel".into(), |name| name.to_string_lossy());
            boots.push(Boot { name: name.into_owned(), file: file.clone(), cgroups: Cgroups::V2 });
        }
        Ok(boots)
    }

    /// The steps of a guest, for its shell.
    fn steps(&self) -> String {
        let filter = self.filter.as_deref().map_or_else(String::new, |text| format!(" {}", quoted(text)));
        let mut steps =
            vec!["step kernel 60 uname -r".to_owned(), "step doctor 300 tracer doctor".to_owned()];
        let environment = format!(
            "TRACER_BIN=/usr/bin/tracer TRACER_TEST_PROGRAMS=/programs TRACER_TEST_SLOWNESS={SLOWNESS}"
        );
        let hooks: Vec<Option<&str>> = if self.hook.is_empty() {
            vec![None]
        } else {
            self.hook.iter().map(|hook| Some(hook.as_str())).collect()
        };
        for test in &self.tests {
            // Only opens have more than one hook.
            let opens = test == "open";
            for hook in if opens { &hooks[..] } else { &[None] } {
                let (name, variable) = hook.map_or_else(
                    || (test.clone(), String::new()),
                    |hook| (format!("{test}:{hook}"), format!(" TRACER_TEST_HOOK={hook}")),
                );
                let run = format!("/tests/{test} --color=never --test-threads=1{filter}");
                steps.push(format!("step {name} {STEP_LIMIT} env {environment}{variable} {run}"));
            }
        }
        steps.join("\n") + "\n"
    }
}

/// The word, for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Builds what the guests run and packs it.
fn make_image(options: &Options, scratch: &Path, file: &Path) -> Result<()> {
    eprintln!("xtask: building what the guests run …");
    let tracer = dist::native_tracer()?;
    let built = tests()?;
    let image = Image::new(scratch)?;
    image.add(&tracer, Path::new("/usr/bin/tracer"))?;
    // The last ones because the tests ask more of them than busybox's can.
    for program in ["runc", "crun", "unshare", "bpftool", "date", "sh", "sleep"] {
        image.program(program)?;
    }
    for name in &options.tests {
        let test = built.iter().find(|binary| binary.test && &binary.name == name);
        let test = test.with_context(|| format!("there is no integration test {name}"))?;
        image.add(&test.path, &Path::new("/tests").join(name))?;
    }
    let compiler = built.iter().find(|binary| binary.name == "compile-programs");
    let compiler = compiler.context("cargo built no binary named compile-programs")?;
    let programs = scratch.join("programs");
    image::fill(&compiler.path, &programs)?;
    for program in fs::read_dir(&programs)? {
        let program = program?;
        image.add(&program.path(), &Path::new("/programs").join(program.file_name()))?;
    }
    image.executable("/steps", &options.steps())?;
    image.pack(file)
}

/// Builds the integration tests as static programs, small and somewhat optimised: emulation is slow.
fn tests() -> Result<Vec<artifact::Executable>> {
    let mut command = cargo_stable("test");
    command.args(["--package", "integration-tests", "--no-run"]);
    for setting in ["debug=false", "strip=true", "opt-level=1"] {
        command.arg("--config").arg(format!("profile.dev.{setting}"));
    }
    artifact::executables(Target::of(std::env::consts::ARCH)?.select(&mut command))
}

/// A line of the table.
#[derive(Debug)]
struct Row {
    kernel: String,
    step: String,
    passed: bool,
    what: String,
    time: Duration,
}

/// What came of a guest: a line for each step, after the output of those that failed.
fn judge(kernel: &str, report: Result<Report>, time: Duration) -> Vec<Row> {
    let failed = |what: &str| Row {
        kernel: kernel.to_owned(),
        step: "guest".to_owned(),
        passed: false,
        what: what.to_owned(),
        time,
    };
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            eprintln!("error: {kernel}: {error:#}");
            return vec![failed("did not come to its end")];
        }
    };
    let mut rows: Vec<Row> = report.steps.iter().map(|step| row(kernel, step)).collect();
    for (step, _) in report.steps.iter().zip(&rows).filter(|(_, row)| !row.passed) {
        println!("\n{kernel}: {}\n    {}", step.name, step.output.join("\n    "));
    }
    if !report.done {
        eprintln!("error: {kernel}: the guest ended early; {}", report.stray.join("\n"));
        rows.push(failed("ended early"));
    }
    rows
}

fn row(kernel: &str, step: &Step) -> Row {
    let mut tally = Tally::default();
    let tested = step.output.iter().filter(|line| tally.add(line)).count() > 0;
    let what = match step.status {
        None => "the guest ended".to_owned(),
        Some(_) if tested => tally.to_string(),
        Some(0) => step.output.last().filter(|_| step.output.len() == 1).cloned().unwrap_or_default(),
        Some(status) => format!("exit status {status}"),
    };
    let passed = step.status == Some(0);
    Row { kernel: kernel.to_owned(), step: step.name.clone(), passed, what, time: step.time }
}

fn table(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let result = if row.passed { "ok" } else { "FAILED" };
        let line = format!(
            "{:<8}{:<20}{result:<8}{:>8.1} s  {}",
            row.kernel,
            row.step,
            row.time.as_secs_f64(),
            row.what
        );
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn options(args: &[&str]) -> Options {
        Cli::parse_from(["vm"].iter().chain(args)).options
    }

    fn step(name: &str, status: Option<i32>, output: &[&str]) -> Step {
        let output = output.iter().map(ToString::to_string).collect();
        Step { name: name.to_owned(), status, output, time: Duration::from_millis(1500) }
    }

    #[test]
    fn every_hook_runs_the_tests_of_opens() {
        let steps =
            options(&["--tests", "open,exec", "--hook", "sys-exit,fexit", "--filter", "it's"]).steps();
        let lines: Vec<&str> = steps.lines().filter(|line| line.contains("/tests/")).collect();
        let [sys_exit, fexit, exec] = lines[..] else { panic!("{steps}") };
        assert!(
            sys_exit.starts_with("step open:sys-exit ") && sys_exit.contains(" TRACER_TEST_HOOK=sys-exit ")
        );
        assert!(fexit.starts_with("step open:fexit ") && fexit.contains(" TRACER_TEST_HOOK=fexit "));
        assert!(exec.starts_with("step exec ") && !exec.contains("HOOK"));
        assert!(fexit.ends_with(r" /tests/open --color=never --test-threads=1 'it'\''s'"), "{fexit}");
    }

    #[test]
    fn kernels_of_files_stand_beside_named_ones() {
        assert!(options(&["2.4"]).boots().is_err());
        assert!(options(&["--kernel", "/no/such/file"]).boots().is_err());
        let file = tempfile::NamedTempFile::new().unwrap();
        let boots = options(&["--kernel", file.path().to_str().unwrap()]).boots().unwrap();
        assert_eq!(boots.len(), 1);
        assert_eq!(boots[0].file, file.path());
    }

    #[test]
    fn table_says_what_failed() {
        let mut report = Report::new("@@x");
        report.steps = vec![
            step("kernel", Some(0), &["6.1.0"]),
            step("doctor", Some(0), &["ok one", "ok two"]),
            step("open", Some(101), &["test result: FAILED. 2 passed; 1 failed; 0 ignored; finished in 1 s"]),
            step("list", Some(137), &["running 3 tests"]),
            step("exec", None, &[]),
        ];
        let rows = judge("6.1", Ok(report), Duration::from_secs(61));
        assert_eq!(
            table(&rows),
            "6.1     kernel              ok           1.5 s  6.1.0\n\
             6.1     doctor              ok           1.5 s\n\
             6.1     open                FAILED       1.5 s  2 passed, 1 failed\n\
             6.1     list                FAILED       1.5 s  exit status 137\n\
             6.1     exec                FAILED       1.5 s  the guest ended\n\
             6.1     guest               FAILED      61.0 s  ended early\n"
        );
        let rows = judge("6.1", Err(anyhow::anyhow!("no QEMU")), Duration::ZERO);
        assert!(!rows[0].passed && rows.len() == 1);
    }
}
