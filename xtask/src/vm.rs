//! `cargo xtask vm`: the integration tests on other kernels, in QEMU.
//!
//! A guest has the static tracer, the tests linked statically, their C programs, and container runtimes with their
//! libraries. It boots in some seconds and runs steps, whose output comes back over a serial line ([`report`]). Emulation
//! makes everything some twenty times slower: the tests' deadlines are longer for it.

mod guest;
mod icount;
mod image;
mod kernel;
mod report;

use std::{
    env::consts::ARCH,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use xshell::{Cmd, Shell};

use crate::{
    cargo::{self, Executable},
    dist::{self, Target},
    process::{quietly, target_dir},
    setup::{self, Scope},
    tally::Tally,
};
use guest::{Arch, Guest};
use image::Image;
use kernel::{Kernel, kernels};
use report::{Report, Step};

/// The default test binaries: those that need no more than runc and crun, and say something about the kernel.
const SUITES: [&str; 8] = ["hooks", "open", "exec", "exit", "identity", "lifecycle", "list", "accounting"];
/// The tests to run of those binaries that take many minutes in emulation, or need files that guests do not have: the others
/// say nothing more about the kernel.
const CHOICES: [(&str, &str); 3] = [
    ("accounting", "one_namespace"),
    ("exit", "--skip columns_show"),
    ("list", "--skip watch_a_hundred --skip watch_many"),
];
/// The values of `trace open --hook`, each of which is tested.
const HOOKS: [&str; 2] = ["sys-exit", "fexit"];

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    instead: Option<Instead>,
    /// Kernels, by version; all by default
    #[arg(value_name = "KERNEL")]
    kernels: Vec<String>,
    /// Boot this kernel image, alone or as well
    #[arg(long, value_name = "FILE")]
    kernel: Vec<PathBuf>,
    /// Test binaries to run
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_values = SUITES)]
    tests: Vec<String>,
    /// Run only tests whose names contain this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Run this in the guest's shell instead of the tests, and print its output
    #[arg(long, value_name = "COMMAND")]
    run: Vec<String>,
    /// Hooks of `trace open` to test, one after the other
    #[arg(long, value_name = "HOOK", value_delimiter = ',', default_values = HOOKS)]
    hook: Vec<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Instead {
    /// Count the instructions that tracing adds to an operation
    Icount(icount::Options),
}

/// Runs the tests on each kernel and prints a table of the results.
pub(crate) fn run(sh: &Shell, options: &Options) -> Result<ExitCode> {
    setup::ensure(sh, Scope::Vm)?;
    if let Some(Instead::Icount(options)) = &options.instead {
        icount::run(sh, options)?;
        return Ok(ExitCode::SUCCESS);
    }
    let kernels = options.select()?;
    let scratch = tempfile::tempdir()?;
    let (mut table, mut passed) = (String::new(), true);
    for kernel in &kernels {
        let image = scratch.path().join(kernel.arch.name);
        if !image.exists() {
            make_image(sh, options, kernel.arch, &image)?;
        }
        let file = kernel.fetch(sh)?;
        let guest = Guest {
            name: &kernel.name,
            arch: kernel.arch,
            kernel: &file,
            image: &image,
            cgroups: kernel.cgroups,
            icount: kernel.icount,
            command_line: kernel.command_line,
        };
        let (rows, ok) = judge(kernel, guest.run());
        table += &rows;
        passed &= ok;
    }
    println!("\n{table}\nlogs: {}", logs().display());
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where the guests' output goes.
fn logs() -> PathBuf {
    target_dir().join("vm")
}

impl Options {
    fn select(&self) -> Result<Vec<Kernel>> {
        let mut selected = Vec::new();
        for name in &self.kernels {
            selected.push(Kernel::of(name)?);
        }
        for file in &self.kernel {
            selected.push(Kernel::of_file(file)?);
        }
        Ok(if selected.is_empty() { kernels() } else { selected })
    }

    /// What the guest runs beside what all do (`init.sh`), as a shell script.
    fn steps(&self) -> String {
        let run = |(n, command): (usize, &String)| format!("step run-{n} 1800 sh -c {}", quoted(command));
        let suite = |test: &String| {
            let choice =
                CHOICES.iter().find(|(name, _)| name == test).map(|(_, choice)| (*choice).to_owned());
            format!("suite {test} {}", self.filter.as_deref().map(quoted).or(choice).unwrap_or_default())
        };
        let steps: Vec<String> = if self.run.is_empty() {
            // There is no way back from lockdown.
            self.tests.iter().map(suite).chain(["step lockdown 300 locked_down".to_owned()]).collect()
        } else {
            self.run.iter().enumerate().map(run).collect()
        };
        format!("hooks='{}'\n{}\n", self.hook.join(" "), steps.join("\n"))
    }
}

/// The word, quoted for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Programs of a guest, beside busybox: the last ones because the tests ask more of them than busybox's can do.
const PROGRAMS: [&str; 8] = ["runc", "crun", "unshare", "bpftool", "setpriv", "date", "sh", "sleep"];

/// Builds what the guests of an architecture run, and packs it.
fn make_image(sh: &Shell, options: &Options, arch: &'static Arch, file: &Path) -> Result<()> {
    eprintln!("xtask: building what guests of {} run …", arch.name);
    if arch.name != ARCH {
        setup::ensure(sh, Scope::VmForeign)?;
    }
    let scratch = tempfile::tempdir()?;
    let image = Image::new(sh, scratch.path(), arch, &PROGRAMS)?;
    image.add(&dist::tracer(sh, Target::of(arch.name)?)?, "/usr/bin/tracer")?;
    let build = build_of_tests(sh, "test", arch.name)?.arg("--no-run");
    let built =
        cargo::executables(options.tests.iter().fold(build, |build, test| build.args(["--test", test])))?;
    for name in &options.tests {
        let test = built.iter().find(|executable| executable.test && executable.name == *name);
        let test = test.with_context(|| format!("there is no integration test {name}"))?;
        image.add(&test.path, &format!("/tests/{name}"))?;
    }
    let programs = scratch.path().join("programs");
    sh.create_dir(&programs)?;
    quietly(compiler_of_programs(sh, arch, built)?.arg(&programs))?;
    for program in sh.read_dir(&programs)? {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        image.add(&program, &format!("/programs/{name}"))?;
    }
    image.executable("/steps", &options.steps())?;
    image.pack(file)
}

/// `cargo SUBCOMMAND` for the integration tests: static programs, small and somewhat optimised, since emulation is slow.
fn build_of_tests<'a>(sh: &'a Shell, subcommand: &str, arch: &str) -> Result<Cmd<'a>> {
    let mut command = cargo::building(sh, subcommand).args(["--package", "integration-tests"]);
    for setting in ["debug=false", "strip=true", "opt-level=1"] {
        command = command.arg("--config").arg(format!("profile.dev.{setting}"));
    }
    Ok(Target::of(arch)?.select(command))
}

/// The program that compiles the tests' C programs, on this machine, for that architecture. It was built with the tests,
/// unless these are for another one.
fn compiler_of_programs<'a>(sh: &'a Shell, arch: &Arch, mut built: Vec<Executable>) -> Result<Cmd<'a>> {
    const NAME: &str = "compile-programs";
    if arch.name == ARCH {
        return Ok(sh.cmd(cargo::program(&built, NAME)?));
    }
    built = cargo::executables(build_of_tests(sh, "build", ARCH)?.args(["--bin", NAME]))?;
    let compiler = format!("{}-linux-gnu-gcc", arch.name);
    Ok(sh.cmd(cargo::program(&built, NAME)?).env("TRACER_TEST_CC", compiler))
}

/// The rows of a guest for the table, and whether all of it passed. Prints the output of failed steps, and of those that
/// were run for their output.
fn judge(kernel: &Kernel, report: Result<Report>) -> (String, bool) {
    let name = kernel.name.as_str();
    let report = report.unwrap_or_else(|error| {
        eprintln!("error: {name}: {error:#}");
        Report::new("")
    });
    let (mut rows, mut passed) = (String::new(), report.done);
    for step in &report.steps {
        let (result, text) = judge_step(kernel, step);
        if result == "FAILED" || step.name.starts_with("run-") {
            println!("\n{name}: {}\n    {}", step.name, step.output.join("\n    "));
        }
        passed &= result != "FAILED";
        rows += &row(name, &step.name, result, step.time, &text);
    }
    if !report.done {
        rows += &row(name, "guest", "FAILED", Duration::ZERO, "ended early");
    }
    (rows, passed)
}

fn judge_step(kernel: &Kernel, step: &Step) -> (&'static str, String) {
    let mut tally = Tally::default();
    let tested = step.output.iter().filter(|line| tally.add_line(line)).count() > 0;
    let may_lack = step.name.split_once(':').is_some_and(|(_, hook)| kernel.lacks.contains(&hook));
    match step.status.as_deref() {
        None => ("FAILED", "the guest ended".to_owned()),
        Some("absent") if may_lack => ("-", "this kernel has no such hook".to_owned()),
        Some("absent") => ("FAILED", "the kernel refuses a hook that it has".to_owned()),
        Some(status) => {
            let text = match (status, &step.output[..]) {
                _ if tested => tally.to_string(),
                ("0", [line]) => line.clone(),
                ("0", _) => String::new(),
                _ => format!("exit status {status}"),
            };
            (if status == "0" { "ok" } else { "FAILED" }, text)
        }
    }
}

fn row(kernel: &str, step: &str, result: &str, time: Duration, text: &str) -> String {
    let line = format!("{kernel:<13}{step:<20}{result:<8}{:>8.1} s  {text}", time.as_secs_f64());
    format!("{}\n", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_seen() {
        let kernel = Kernel::of("5.10").unwrap();
        let result = |name: &str, status: &str, output: &[&str]| {
            let output = output.iter().map(ToString::to_string).collect();
            judge_step(
                &kernel,
                &Step {
                    name: name.to_owned(),
                    status: Some(status.to_owned()),
                    output,
                    time: Duration::ZERO,
                },
            )
        };
        let failed = "test result: FAILED. 2 passed; 1 failed; 0 ignored; finished in 1 s";
        assert_eq!(result("kernel", "0", &["6.1.0"]), ("ok", "6.1.0".into()));
        assert_eq!(result("open", "101", &[failed]).1, "2 passed, 1 failed");
        assert_eq!(result("list", "137", &["running"]).1, "exit status 137");
        assert_eq!(result("open:fexit", "absent", &[]).0, "-");
        assert_eq!(result("open:sys-exit", "absent", &[]).0, "FAILED");
        assert!(!judge(&kernel, Ok(Report::new("@@x"))).1, "it ended early");
    }
}
