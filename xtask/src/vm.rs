//! tracer on other kernels: guests in QEMU that run the integration tests.
//!
//! A guest has the static tracer, the tests linked statically, their C programs, and container runtimes with their
//! libraries: this machine's or, where it is of another architecture, Debian's. It boots in some seconds and runs steps, whose output comes back over a serial line
//! ([`report`]). Emulation makes everything some twenty times slower: the tests' deadlines are longer for it.

mod arch;
mod guest;
mod icount;
mod image;
mod kernel;
mod packages;
mod report;

use std::{
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    artifact,
    dist::{self, Target},
    process::{self, cargo_stable, clean},
    setup::{self, Scope},
    tally::Tally,
};
use arch::Arch;
use guest::Guest;
use image::Image;
use kernel::{Cgroups, KERNELS, Kernel};
use report::{Report, Status, Step};

/// The test binaries that are run unless told: those for which runc and crun suffice, and which say something about
/// the kernel.
const SUITES: [&str; 7] = ["hooks", "open", "exec", "identity", "lifecycle", "list", "accounting"];

/// The values of `trace open --hook`, each of which is tested.
const HOOKS: [&str; 2] = ["sys-exit", "fexit"];

/// Which of their tests are run where not all are: what is left out says nothing about the kernel that the rest does not,
/// and takes many minutes in emulation.
const CHOICES: [(&str, &str); 2] =
    [("accounting", "one_namespace"), ("list", "--skip watch_a_hundred --skip watch_many")];

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
    /// Run this in the guest's shell, and show what it says, in place of the tests
    #[arg(long, value_name = "COMMAND")]
    run: Vec<String>,
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
    arch: &'static Arch,
    file: PathBuf,
    cgroups: Cgroups,
    /// As [`Kernel::icount`].
    icount: Option<u32>,
    /// The hooks that it may lack; none is known of a kernel that was named by its file, which may lack any.
    lacks: &'static [&'static str],
    /// As [`Kernel::command_line`].
    command_line: &'static str,
}

/// Runs the tests on each kernel and prints what came of them.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if let Some(Instead::Icount(options)) = &options.instead {
        print!("{}", icount::run(options)?);
        return Ok(ExitCode::SUCCESS);
    }
    // What they are unpacked with, whatever is in them.
    setup::ensure(Scope::Vm)?;
    let boots = options.boots()?;
    let scratch = tempfile::tempdir()?;
    let logs = logs();
    let mut rows = Vec::new();
    for boot in &boots {
        let image = scratch.path().join(boot.arch.name);
        if !image.exists() {
            setup::ensure(boot.arch.scope())?;
            make_image(options, boot.arch, &image)?;
        }
        let guest = Guest {
            name: &boot.name,
            arch: boot.arch,
            kernel: &boot.file,
            image: &image,
            cgroups: boot.cgroups,
            icount: boot.icount,
            command_line: boot.command_line,
            limit: GUEST_LIMIT,
            logs: &logs,
        };
        let began = Instant::now();
        let report = guest.run();
        rows.extend(judge(boot, report, began.elapsed()));
    }
    print!("\n{}\n{}", table(&rows), summary(&boots, &rows));
    println!("\nlogs: {}", logs.display());
    Ok(if rows.iter().all(Row::passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
            let Kernel { name, cgroups, icount, lacks, command_line, .. } = *kernel;
            let (name, arch) = (name.to_owned(), kernel.arch()?);
            boots.push(Boot { name, arch, file, cgroups, icount, lacks, command_line });
        }
        for file in &self.kernel {
            ensure!(file.is_file(), "there is no kernel {}", file.display());
            let name = file.file_name().map_or_else(|| "kernel".into(), |name| name.to_string_lossy());
            boots.push(Boot {
                name: name.into_owned(),
                arch: Arch::of(ARCH)?,
                file: file.clone(),
                cgroups: Cgroups::V2,
                icount: None,
                lacks: &HOOKS,
                command_line: "",
            });
        }
        Ok(boots)
    }

    /// The steps of a guest, for its shell.
    fn steps(&self) -> String {
        let mut steps = vec![
            "step kernel 60 uname -r".to_owned(),
            "step doctor 300 tracer doctor".to_owned(),
            "step no-btf 60 without_btf".to_owned(),
        ];
        if !self.run.is_empty() {
            let commands = self.run.iter().enumerate();
            steps.extend(
                commands.map(|(n, command)| format!("step run-{n} {STEP_LIMIT} sh -c {}", quoted(command))),
            );
            return steps.join("\n") + "\n";
        }
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
                let choice = choice(test, self.filter.as_deref());
                let run = format!("/tests/{test} --color=never --test-threads=1{choice}");
                let step = hook.map_or_else(|| "step".to_owned(), |hook| format!("step_at {hook}"));
                steps.push(format!("{step} {name} {STEP_LIMIT} env {environment}{variable} {run}"));
            }
        }
        // There is no way back.
        steps.push("step lockdown 300 locked_down".to_owned());
        steps.join("\n") + "\n"
    }
}

/// What tells a test binary which of its tests to run. Who asks for tests by name gets those.
fn choice(test: &str, filter: Option<&str>) -> String {
    let of_suite = || CHOICES.iter().find(|(name, _)| *name == test).map(|(_, choice)| (*choice).to_owned());
    filter.map(quoted).or_else(of_suite).map_or_else(String::new, |choice| format!(" {choice}"))
}

/// The word, for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// What guests have programs of, beside busybox's: the last ones because the tests ask more of them than those can.
const PROGRAMS: [&str; 8] = ["runc", "crun", "unshare", "bpftool", "setpriv", "date", "sh", "sleep"];

/// Builds what the guests of an architecture run and packs it.
fn make_image(options: &Options, arch: &Arch, file: &Path) -> Result<()> {
    eprintln!("xtask: building what guests of {} run …", arch.name);
    let scratch = tempfile::tempdir()?;
    let image = Image::new(scratch.path(), arch, &PROGRAMS)?;
    image.add(&dist::tracer(arch.name)?, Path::new("/usr/bin/tracer"))?;
    let built = tests(arch, &options.tests)?;
    for name in &options.tests {
        let test = built.iter().find(|binary| binary.test && &binary.name == name);
        let test = test.with_context(|| format!("there is no integration test {name}"))?;
        image.add(&test.path, &Path::new("/tests").join(name))?;
    }
    let programs = scratch.path().join("programs");
    image::fill(&mut compiler_of_programs(arch, built)?, &programs)?;
    for program in fs::read_dir(&programs)? {
        let program = program?;
        // Their libraries are in the image: those that programs are linked with here, or all of the packages'.
        let at = Path::new("/programs").join(program.file_name());
        if arch.is_native() { image.add(&program.path(), &at)? } else { image.copy(&program.path(), &at)? }
    }
    image.executable("/steps", &options.steps())?;
    image.pack(file)
}

/// Builds these integration tests, and the package's programs with them.
fn tests(arch: &Arch, names: &[String]) -> Result<Vec<artifact::Executable>> {
    let mut command = cargo_of_tests("test", arch.name)?;
    for name in names {
        command.args(["--test", name]);
    }
    artifact::executables(command.arg("--no-run"))
}

/// What compiles the tests' C programs for that architecture into a directory, on this machine. It is built with the tests.
fn compiler_of_programs(arch: &Arch, mut built: Vec<artifact::Executable>) -> Result<Command> {
    const NAME: &str = "compile-programs";
    if !arch.is_native() {
        built = artifact::executables(cargo_of_tests("build", ARCH)?.args(["--bin", NAME]))?;
    }
    let mut compiler = clean(artifact::named(built, NAME)?.as_os_str());
    if !arch.is_native() {
        compiler.env("TRACER_TEST_CC", arch.compiler);
    }
    Ok(compiler)
}

/// `cargo COMMAND` for the integration tests: static programs, small and somewhat optimised, since emulation is slow.
fn cargo_of_tests(subcommand: &str, arch: &str) -> Result<Command> {
    let mut command = cargo_stable(subcommand);
    command.args(["--package", "integration-tests"]);
    for setting in ["debug=false", "strip=true", "opt-level=1"] {
        command.arg("--config").arg(format!("profile.dev.{setting}"));
    }
    let target = Target::of(arch)?;
    // The tests' TLS has C code.
    target.compile_c(&mut command);
    target.select(&mut command);
    Ok(command)
}

/// A line of the table.
#[derive(Debug)]
struct Row {
    kernel: String,
    step: String,
    result: Outcome,
    what: String,
    tally: Tally,
    time: Duration,
}

/// What the line is called that is about a guest as a whole.
const GUEST: &str = "guest";

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    /// The kernel does not have what it is about, and need not.
    Absent,
    Failed,
}

impl Row {
    fn passed(&self) -> bool {
        self.result != Outcome::Failed
    }

    /// Whether what it says is what it was run for.
    fn is_shown(&self) -> bool {
        self.step.starts_with("run-")
    }

    /// The hook that its tests were run with.
    fn hook(&self) -> Option<&str> {
        hook_of(&self.step)
    }
}

/// The hook that a step's tests are run with, by its name.
fn hook_of(step: &str) -> Option<&str> {
    step.split_once(':').map(|(_, hook)| hook)
}

/// What came of a guest: a line for each step, after the output of those that failed.
fn judge(boot: &Boot, report: Result<Report>, time: Duration) -> Vec<Row> {
    let kernel = boot.name.as_str();
    let failed = |what: &str| Row {
        kernel: kernel.to_owned(),
        step: GUEST.to_owned(),
        result: Outcome::Failed,
        what: what.to_owned(),
        tally: Tally::default(),
        time,
    };
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            eprintln!("error: {kernel}: {error:#}");
            return vec![failed("did not come to its end")];
        }
    };
    let mut rows: Vec<Row> = report.steps.iter().map(|step| row(boot, step)).collect();
    for (step, _) in report.steps.iter().zip(&rows).filter(|(_, row)| !row.passed() || row.is_shown()) {
        println!("\n{kernel}: {}\n    {}", step.name, step.output.join("\n    "));
    }
    if !report.done {
        eprintln!("error: {kernel}: the guest ended early; {}", report.stray.join("\n"));
        rows.push(failed("ended early"));
    }
    rows
}

fn row(boot: &Boot, step: &Step) -> Row {
    let mut tally = Tally::default();
    let tested = step.output.iter().filter(|line| tally.add(line)).count() > 0;
    let may_lack = hook_of(&step.name).is_some_and(|hook| boot.lacks.contains(&hook));
    let (result, what) = match step.status {
        None => (Outcome::Failed, "the guest ended".to_owned()),
        Some(Status::Absent) if may_lack => (Outcome::Absent, "this kernel has no such hook".to_owned()),
        Some(Status::Absent) => (Outcome::Failed, "the kernel refuses a hook that it has".to_owned()),
        Some(Status::Exit(status)) => {
            let what = match status {
                _ if tested => tally.to_string(),
                0 => step.output.last().filter(|_| step.output.len() == 1).cloned().unwrap_or_default(),
                status => format!("exit status {status}"),
            };
            (if status == 0 { Outcome::Passed } else { Outcome::Failed }, what)
        }
    };
    Row { kernel: boot.name.clone(), step: step.name.clone(), result, what, tally, time: step.time }
}

fn table(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let result = match row.result {
            Outcome::Passed => "ok",
            Outcome::Absent => "-",
            Outcome::Failed => "FAILED",
        };
        let line = format!(
            "{:<7} {:<20}{result:<8}{:>8.1} s  {}",
            row.kernel,
            row.step,
            row.time.as_secs_f64(),
            row.what
        );
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}

/// A line for each kernel, as documents have it.
fn summary(boots: &[Boot], rows: &[Row]) -> String {
    let mut table =
        "| kernel | architecture | cgroups | hooks of opens | tests | minutes |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for boot in boots {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.kernel == boot.name).collect();
        let release =
            rows.iter().find(|row| row.step == "kernel").map_or(boot.name.as_str(), |row| &row.what);
        let mut hooks: Vec<&str> =
            rows.iter().filter(|row| row.result == Outcome::Passed).filter_map(|row| row.hook()).collect();
        hooks.dedup();
        let mut tally = Tally::default();
        for row in &rows {
            tally += row.tally;
        }
        let result = if rows.iter().all(|row| row.passed()) { "" } else { "**failed**: " };
        let steps = rows.iter().filter(|row| row.step != GUEST);
        let minutes = steps.map(|row| row.time).sum::<Duration>().as_secs_f64() / 60.0;
        let cgroups = boot.cgroups.name();
        let line = format!(
            "| {release} | {} | {cgroups} | {} | {result}{tally} | {minutes:.0} |\n",
            boot.arch.name,
            hooks.join(", ")
        );
        table.push_str(&line);
    }
    table
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

    fn step(name: &str, status: Option<Status>, output: &[&str]) -> Step {
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
            sys_exit.starts_with("step_at sys-exit open:sys-exit ")
                && sys_exit.contains(" TRACER_TEST_HOOK=sys-exit ")
        );
        assert!(fexit.starts_with("step_at fexit open:fexit ") && fexit.contains(" TRACER_TEST_HOOK=fexit "));
        assert!(exec.starts_with("step exec ") && !exec.contains("HOOK"));
        assert!(fexit.ends_with(r" /tests/open --color=never --test-threads=1 'it'\''s'"), "{fexit}");
    }

    #[test]
    fn suites_that_take_long_are_run_in_part() {
        let run = |args: &[&str]| {
            let steps = options(args).steps();
            steps.lines().find(|line| line.contains("/tests/")).unwrap().to_owned()
        };
        assert!(run(&["--tests", "accounting"]).ends_with("=1 one_namespace"));
        assert!(run(&["--tests", "accounting", "--filter", "exec"]).ends_with("=1 'exec'"));
        assert!(run(&["--tests", "exec"]).ends_with("=1"));
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
        let boot = Boot {
            name: "6.1".into(),
            arch: Arch::of("x86_64").unwrap(),
            file: PathBuf::new(),
            cgroups: Cgroups::V2,
            icount: None,
            lacks: &["fexit"],
            command_line: "",
        };
        let mut report = Report::new("@@x");
        report.steps = vec![
            step("kernel", Some(Status::Exit(0)), &["6.1.0"]),
            step("doctor", Some(Status::Exit(0)), &["ok one", "ok two"]),
            step("open:fexit", Some(Status::Absent), &["refused"]),
            step("open:sys-exit", Some(Status::Absent), &["refused"]),
            step(
                "open",
                Some(Status::Exit(101)),
                &["test result: FAILED. 2 passed; 1 failed; 0 ignored; finished in 1 s"],
            ),
            step("list", Some(Status::Exit(137)), &["running 3 tests"]),
            step("exec", None, &[]),
        ];
        let rows = judge(&boot, Ok(report), Duration::from_secs(61));
        assert_eq!(
            table(&rows),
            "6.1     kernel              ok           1.5 s  6.1.0\n\
             6.1     doctor              ok           1.5 s\n\
             6.1     open:fexit          -            1.5 s  this kernel has no such hook\n\
             6.1     open:sys-exit       FAILED       1.5 s  the kernel refuses a hook that it has\n\
             6.1     open                FAILED       1.5 s  2 passed, 1 failed\n\
             6.1     list                FAILED       1.5 s  exit status 137\n\
             6.1     exec                FAILED       1.5 s  the guest ended\n\
             6.1     guest               FAILED      61.0 s  ended early\n"
        );
        let boots = [boot];
        assert_eq!(
            summary(&boots, &rows).lines().last().unwrap(),
            "| 6.1.0 | x86_64 | v2 |  | **failed**: 2 passed, 1 failed | 0 |"
        );
        let boot = &boots[0];
        let rows = judge(boot, Err(anyhow::anyhow!("no QEMU")), Duration::ZERO);
        assert!(!rows[0].passed() && rows.len() == 1);
    }
}
