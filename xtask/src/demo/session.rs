//! What the demonstration starts and must end: `tracer`, a container, a directory.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Read, Write},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, TryRecvError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use crate::process::clean;

/// Ends and removes everything when dropped.
pub(crate) struct Session {
    /// Bundle and runc's state. Its name, which is unique, is the container's id, too.
    dir: TempDir,
    runc: PathBuf,
    tracer: Option<Tracer>,
    container: Option<Child>,
}

/// The running `tracer`.
struct Tracer {
    child: Child,
    ready: Receiver<()>,
    /// Shows its stdout and counts the lines about the namespace.
    stdout: Option<JoinHandle<usize>>,
    stderr: Option<JoinHandle<()>>,
    shown: usize,
}

impl Session {
    pub(crate) fn new(runc: PathBuf) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("tracer-demo-").tempdir().context("making a directory")?;
        Ok(Self { dir, runc, tracer: None, container: None })
    }

    /// Where the bundle goes.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    /// The container's id.
    pub(crate) fn id(&self) -> &str {
        self.dir.path().file_name().and_then(OsStr::to_str).unwrap_or("tracer-demo")
    }

    /// Starts `tracer` for that namespace; its output appears on this process's stdout and stderr.
    pub(crate) fn start_tracer(&mut self, tracer: &Path, namespace: &'static str) -> Result<()> {
        let mut child = own_group(clean(tracer.as_os_str()))
            .args(["trace", "open", "-n", namespace, "--timeout", "10s"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", tracer.display()))?;
        let (said, ready) = mpsc::channel();
        let stderr = child.stderr.take().map(|stderr| {
            thread::spawn(move || {
                show(stderr, std::io::stderr(), |line| {
                    if line.starts_with("tracer: ready") {
                        // Nobody waits any more once the session ends.
                        let _ = said.send(());
                    }
                });
            })
        });
        let stdout = child.stdout.take().map(|stdout| {
            thread::spawn(move || {
                let mut count = 0;
                show(stdout, std::io::stdout(), |line| {
                    count += usize::from(line.split_whitespace().any(|word| word == namespace));
                });
                count
            })
        });
        self.tracer = Some(Tracer { child, ready, stdout, stderr, shown: 0 });
        Ok(())
    }

    /// Whether every hook is attached. An error if `tracer` ended instead.
    pub(crate) fn tracer_is_ready(&mut self) -> Result<Option<()>> {
        let Some(tracer) = &mut self.tracer else { bail!("tracer is not running") };
        match tracer.ready.try_recv() {
            Ok(()) => Ok(Some(())),
            // Closed: its stderr is at its end.
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => match tracer.child.try_wait() {
                Ok(Some(status)) => bail!("tracer ended before it was ready ({status})"),
                Ok(None) => Ok(None),
                Err(error) => Err(error).context("waiting for tracer"),
            },
        }
    }

    /// Starts the container.
    pub(crate) fn start_container(&mut self) -> Result<()> {
        let container = self.runc().arg("run").arg("--bundle").arg(self.bundle()).arg(self.id()).spawn();
        self.container = Some(container.context("starting runc")?);
        Ok(())
    }

    /// How the container ended, if it did.
    pub(crate) fn container_status(&mut self) -> Result<Option<ExitStatus>> {
        let Some(container) = &mut self.container else { bail!("the container is not running") };
        container.try_wait().context("waiting for runc")
    }

    /// Asks `tracer` to end, as Ctrl-C does.
    pub(crate) fn stop_tracer(&mut self) -> Result<()> {
        let Some(tracer) = &mut self.tracer else { return Ok(()) };
        tracer.interrupt().context("stopping tracer")
    }

    /// How `tracer` ended, if it did; by then all of its output has been shown.
    pub(crate) fn tracer_status(&mut self) -> Result<Option<ExitStatus>> {
        let Some(tracer) = &mut self.tracer else { bail!("tracer is not running") };
        let status = tracer.child.try_wait().context("waiting for tracer")?;
        if status.is_some() {
            tracer.read_out();
        }
        Ok(status)
    }

    /// How many events were shown. Zero until `tracer` has ended.
    pub(crate) fn shown(&self) -> usize {
        self.tracer.as_ref().map_or(0, |tracer| tracer.shown)
    }

    fn runc(&self) -> Command {
        let mut runc = own_group(clean(self.runc.as_os_str()));
        // A state directory of its own: no other container is ever touched.
        runc.arg("--root").arg(self.dir.path().join("state")).stdin(Stdio::null()).stdout(Stdio::null());
        runc
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(mut container) = self.container.take() {
            // Kills what still runs and removes the cgroups. Where `runc run` ended by itself nothing is left
            // to delete, which is no error with `--force`.
            drop(self.runc().args(["delete", "--force", self.id()]).stderr(Stdio::null()).status());
            end(&mut container);
        }
        if let Some(tracer) = &mut self.tracer {
            drop(tracer.interrupt());
            end(&mut tracer.child);
            tracer.read_out();
        }
    }
}

impl Tracer {
    fn interrupt(&mut self) -> Result<()> {
        // Until it has been waited for, the pid is its own.
        if self.child.try_wait()?.is_none() {
            let pid = Pid::from_child(&self.child);
            kill_process(pid, Signal::INT)?;
        }
        Ok(())
    }

    fn read_out(&mut self) {
        if let Some(stdout) = self.stdout.take() {
            self.shown = stdout.join().unwrap_or(0);
        }
        if let Some(stderr) = self.stderr.take() {
            drop(stderr.join());
        }
    }
}

/// In a process group of its own, so that Ctrl-C reaches `xtask` alone, which then ends things in order.
fn own_group(mut command: Command) -> Command {
    command.process_group(0);
    command
}

/// Waits for a child that was told to end, and kills it if it does not.
fn end(child: &mut Child) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        match child.try_wait() {
            Ok(None) => thread::sleep(Duration::from_millis(20)),
            Ok(Some(_)) | Err(_) => return,
        }
    }
    // With whatever it started: an open pipe in a grandchild would keep the readers waiting.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    drop(child.wait());
}

/// Copies lines as they come, to the end, and tells `see` of each.
fn show(from: impl Read, mut to: impl Write, mut see: impl FnMut(&str)) {
    for line in BufReader::new(from).lines() {
        let Ok(line) = line else { return };
        // A closed pipe is no reason to stop reading: `tracer` would block.
        drop(writeln!(to, "{line}"));
        see(&line);
    }
}
