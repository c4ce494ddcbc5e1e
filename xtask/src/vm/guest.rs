//! Running a guest in QEMU.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{logs, report::Report};

/// Emulation with one processor works everywhere, and the same way; KVM does not work in many virtual machines.
const MACHINE: [&str; 8] = ["-accel", "tcg,thread=single", "-smp", "1", "-m", "2048", "-display", "none"];
/// How long a guest may take for all of its steps.
const LIMIT: Duration = Duration::from_secs(2 * 60 * 60);

/// An architecture, and how QEMU emulates it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arch {
    /// Rust's name.
    pub(crate) name: &'static str,
    /// Debian's name.
    pub(crate) debian: &'static str,
    qemu: &'static str,
    machine: &'static [&'static str],
    /// The serial line of the steps.
    steps: &'static str,
    /// The serial line of the kernel: another one, if there is one.
    console: &'static str,
}

pub(crate) const X86_64: Arch = Arch {
    name: "x86_64",
    debian: "amd64",
    qemu: "qemu-system-x86_64",
    machine: &["-cpu", "Nehalem,-cx16"],
    steps: "ttyS1",
    console: "ttyS0",
};
pub(crate) const AARCH64: Arch = Arch {
    name: "aarch64",
    debian: "arm64",
    qemu: "qemu-system-aarch64",
    machine: &["-machine", "virt", "-cpu", "cortex-a72"],
    steps: "ttyAMA0",
    console: "ttyAMA0",
};

impl Arch {
    /// That of this machine.
    pub(crate) fn here() -> &'static Self {
        if cfg!(target_arch = "aarch64") { &AARCH64 } else { &X86_64 }
    }
}

/// A guest to be run.
#[derive(Debug)]
pub(crate) struct Guest<'a> {
    /// Name of its logs.
    pub(crate) name: &'a str,
    pub(crate) arch: &'static Arch,
    pub(crate) kernel: &'a Path,
    /// The initramfs.
    pub(crate) image: &'a Path,
    /// `v1` or `v2`.
    pub(crate) cgroups: &'static str,
    /// Makes the guest's clock count instructions: 2^shift ns each.
    pub(crate) icount: Option<u32>,
    /// Further words for the kernel.
    pub(crate) command_line: &'static str,
}

impl Guest<'_> {
    /// Runs it to its end. Its output is in the report, in `NAME.log` and, as far as the kernel prints it, in
    /// `NAME-console.log`.
    pub(crate) fn run(&self) -> Result<Report> {
        fs::create_dir_all(logs())?;
        let log = logs().join(format!("{}.log", self.name));
        let shared = self.arch.console == self.arch.steps;
        let console = if shared { log.clone() } else { logs().join(format!("{}-console.log", self.name)) };
        let mut log = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        let mark = format!("@@{}", uuid.get(..8).unwrap_or(&uuid));
        let mut command = self.qemu(&mark, (!shared).then_some(&console));
        let mut qemu = Running(command.spawn().with_context(|| format!("cannot start {}", self.arch.qemu))?);

        let stdout = BufReader::new(qemu.0.stdout.take().context("QEMU has no stdout")?);
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = stdout.split(b'\n').map_while(Result::ok);
            lines.all(|line| {
                send.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()).is_ok()
            })
        });
        let mut report = Report::new(&mark);
        let end = Instant::now() + LIMIT;
        loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    writeln!(log, "{line}")?;
                    let steps = report.steps.len();
                    report.add(&line);
                    if let Some(step) = report.running().filter(|_| report.steps.len() > steps) {
                        eprintln!("xtask: {}: {step} …", self.name);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let step = report.running().unwrap_or("no step");
                    bail!("the guest still ran after {LIMIT:?}, in {step}; {}", tail(&console));
                }
            }
        }
        ensure!(!report.steps.is_empty(), "the guest ran none of its steps; {}", tail(&console));
        if !report.done {
            eprintln!("xtask: {} ended early; {}", self.name, tail(&console));
        }
        Ok(report)
    }

    /// `console` is the file for a serial line of the kernel's own.
    fn qemu(&self, mark: &str, console: Option<&PathBuf>) -> Command {
        let Arch { qemu, machine, steps, console: line, .. } = self.arch;
        // Killed when this process ends, however it ends.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", qemu])
            .args(MACHINE)
            .args(*machine)
            .args(["-nodefaults", "-no-reboot"]);
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.image);
        // On a shared line the kernel prints only why it stops. Words that the kernel does not know become variables of
        // the first process.
        let level = if console.is_some() { "quiet" } else { "loglevel=1" };
        let (cgroups, further) = (self.cgroups, self.command_line);
        command.arg("-append").arg(format!(
            "console={line} panic=-1 {level} tracer_mark={mark} tracer_cgroups={cgroups} tracer_steps={steps} {further}"
        ));
        if let Some(console) = console {
            command.arg("-serial").arg(format!("file:{}", console.display()));
        }
        command.args(["-serial", "stdio"]);
        if let Some(shift) = self.icount {
            command.arg("-icount").arg(format!("shift={shift}"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }
}

/// Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The end of the kernel's log.
fn tail(console: &Path) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(12)..].join("\n    ");
    format!("end of {}:\n    {last}", console.display())
}
