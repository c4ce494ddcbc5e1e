//! Starting a guest in QEMU and listening to it.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{arch::Arch, kernel::Cgroups, report::Report};
use crate::process::{clean, end_with_parent};

/// What QEMU and the kernel are told, but for what differs from guest to guest. Emulation with one processor is what
/// works everywhere, and the same way: KVM does not in many machines that are guests themselves.
const MACHINE: [&str; 8] = ["-accel", "tcg,thread=single", "-smp", "1", "-m", "2048", "-display", "none"];

/// A guest to be.
#[derive(Debug)]
pub(crate) struct Guest<'a> {
    /// What its logs are called.
    pub(crate) name: &'a str,
    pub(crate) arch: &'static Arch,
    pub(crate) kernel: &'a Path,
    /// The initramfs.
    pub(crate) image: &'a Path,
    pub(crate) cgroups: Cgroups,
    /// Has the guest's clock count instructions: 2^shift ns each.
    pub(crate) icount: Option<u32>,
    /// What the kernel is told besides.
    pub(crate) command_line: &'static str,
    /// When to give up.
    pub(crate) limit: Duration,
    /// Where its logs go.
    pub(crate) logs: &'a Path,
}

impl Guest<'_> {
    /// Runs it to its end. What it says is in the report, in `NAME.log` and, as far as the kernel says it, in
    /// `NAME-console.log`.
    pub(crate) fn run(&self) -> Result<Report> {
        fs::create_dir_all(self.logs).with_context(|| format!("making {}", self.logs.display()))?;
        let console = self.console();
        let log = self.log();
        let mut log = File::create(&log).with_context(|| format!("writing {}", log.display()))?;
        let mark = mark()?;
        let mut qemu = Running(
            self.command(&mark, &console)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .with_context(|| format!("starting {}", self.arch.qemu))?,
        );
        let stdout = qemu.0.stdout.take().context("QEMU's stdout is not a pipe")?;
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n') {
                // Nobody listens where the time is over.
                let Ok(line) = line else { return };
                if send.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()).is_err() {
                    return;
                }
            }
        });
        let mut report = Report::new(&mark);
        let end = Instant::now() + self.limit;
        loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    writeln!(log, "{line}").context("writing the log")?;
                    let before = report.running().map(str::to_owned);
                    report.add(&line);
                    if let Some(step) = report.running().filter(|&step| before.as_deref() != Some(step)) {
                        eprintln!("xtask: {}: {step} …", self.name);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let step = report.running().unwrap_or("none of its steps");
                    bail!("the guest still ran after {:?}, in {step}; {}", self.limit, last_words(&console));
                }
            }
        }
        if report.steps.is_empty() {
            bail!("the guest came to none of its steps; {}", last_words(&console));
        }
        if !report.done {
            report.stray.push(last_words(&console));
        }
        Ok(report)
    }

    /// What comes over the serial line of the steps.
    fn log(&self) -> PathBuf {
        self.logs.join(format!("{}.log", self.name))
    }

    /// What the kernel says.
    fn console(&self) -> PathBuf {
        if self.arch.has_console() {
            self.logs.join(format!("{}-console.log", self.name))
        } else {
            self.log()
        }
    }

    fn command(&self, mark: &str, console: &Path) -> Command {
        let Arch { qemu, machine, steps, console: line, .. } = self.arch;
        let mut qemu = clean(OsStr::new(qemu));
        qemu.args(MACHINE).args(*machine).args(["-nodefaults", "-no-reboot"]);
        qemu.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.image);
        // On a line that both write to, the kernel says only why it stops. What the kernel does not know of this, the
        // first process finds in its environment.
        let level = if self.arch.has_console() { "quiet" } else { "loglevel=1" };
        let cgroups = self.cgroups.name();
        let line = format!(
            "console={line} panic=-1 {level} tracer_mark={mark} tracer_cgroups={cgroups} tracer_steps={steps} {}",
            self.command_line
        );
        qemu.arg("-append").arg(line);
        if self.arch.has_console() {
            qemu.arg("-serial").arg(format!("file:{}", console.display()));
        }
        qemu.args(["-serial", "stdio"]);
        if let Some(shift) = self.icount {
            qemu.arg("-icount").arg(format!("shift={shift}"));
        }
        end_with_parent(&mut qemu);
        qemu
    }
}

/// Ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What begins the guest's lines about its steps.
fn mark() -> Result<String> {
    let uuid =
        fs::read_to_string("/proc/sys/kernel/random/uuid").context("asking the kernel for a random name")?;
    Ok(format!("@@{}", uuid.get(..8).unwrap_or(&uuid)))
}

/// The end of what the kernel said.
fn last_words(console: &Path) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(12)..].join("\n    ");
    format!("the kernel's last words ({}):\n    {last}", console.display())
}
