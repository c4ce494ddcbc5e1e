//! `cargo xtask demo`: a small container, traced. It takes some seconds and leaves nothing behind, however it ends.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tempfile::TempDir;
use xshell::{Cmd, Shell, cmd};

use crate::{
    cargo, pod,
    process::{as_root, inherited, is_root, quietly, replace_with},
    setup::{self, Scope},
};

const NAMESPACE: &str = "tracer-demo";
const POD: &str = "demo";
const READY_WITHIN: Duration = Duration::from_secs(30);
/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Runs in the container for about three seconds. The missing file shows what failures look like.
const SCRIPT: &str = "\
for round in 1 2 3; do
    cat /etc/hosts /etc/hostname
    ls /
    cat /etc/missing
    sleep 1
done >/dev/null 2>&1
exit 0";

const TRY_NEXT: &str = "\
Try next, in another terminal while containers run:
  cargo xtask run -- trace open                      every file that any container opens
  cargo xtask run -- trace open -n NAMESPACE -p POD  those of one pod
  cargo xtask run -- trace exec -o json              every program they execute, as JSON
  cargo xtask run -- doctor                          what this kernel allows";

/// Runs the demonstration with that `tracer`, or with one that it builds.
pub(crate) fn run(sh: &Shell, tracer: Option<PathBuf>) -> Result<ExitCode> {
    let tracer = if let Some(tracer) = tracer {
        tracer
    } else {
        setup::ensure(sh, Scope::Demo)?;
        tell("building tracer (takes some minutes the first time)");
        cargo::tracer(sh, true)?
    };
    if !is_root() {
        let this = env::current_exe()?;
        let again = as_root(sh, &this, &inherited(&["PATH", "TMPDIR"]))?;
        return replace_with(again.args(["demo", "--tracer"]).arg(tracer));
    }

    // Ctrl-C reaches tracer as well, which stops. This process stays to clean up: the container ends by itself.
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let result = perform(sh, &tracer);
    if interrupted.load(Ordering::Relaxed) {
        tell("interrupted; everything is cleaned up");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    result.map(|()| ExitCode::SUCCESS)
}

fn perform(sh: &Shell, tracer: &Path) -> Result<()> {
    let container = Container::new(sh)?;
    tell(&format!("$ tracer trace open -n {NAMESPACE} --timeout 10s"));
    let mut tracer = Tracer::start(tracer)?;
    tracer.ready.recv_timeout(READY_WITHIN).context("tracer did not become ready")?;

    tell(&format!(
        "starting container {} as containerd would, for pod {POD} in namespace {NAMESPACE}\n      (for three seconds it \
         reads /etc/hosts and /etc/hostname, lists / and looks for a file that does not exist)",
        container.id
    ));
    container.run()?;
    tell("the container has exited; stopping tracer");
    let events = tracer.stop()?;
    ensure!(events > 0, "tracer showed no event of the container");
    drop(container);
    tell(&format!("{events} events, each with its pod's name. Nothing is left behind.\n\n{TRY_NEXT}"));
    Ok(())
}

/// A container, removed when dropped.
struct Container<'a> {
    sh: &'a Shell,
    /// Its bundle, and a state directory for runc, so that no other container is ever touched.
    dir: TempDir,
    id: String,
}

impl<'a> Container<'a> {
    fn new(sh: &'a Shell) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("tracer-demo-").tempdir()?;
        let id = dir.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let rootfs = dir.path().join("bundle/rootfs");
        for directory in ["bin", "etc", "proc"] {
            fs::create_dir_all(rootfs.join(directory))?;
        }
        let busybox = setup::static_busybox().context("there is no static busybox")?;
        fs::copy(busybox, rootfs.join("bin/busybox"))?;
        for applet in ["sh", "cat", "ls", "sleep"] {
            symlink("busybox", rootfs.join("bin").join(applet))?;
        }
        fs::write(rootfs.join("etc/hosts"), "127.0.0.1 localhost\n")?;
        fs::write(rootfs.join("etc/hostname"), format!("{POD}\n"))?;
        let config = pod::config(NAMESPACE, POD, "web", &["/bin/sh", "-c", SCRIPT]);
        fs::write(dir.path().join("bundle/config.json"), config.to_string())?;
        Ok(Self { sh, dir, id })
    }

    fn runc(&self) -> Cmd<'a> {
        let state = self.dir.path().join("state");
        cmd!(self.sh, "runc --root {state}").quiet()
    }

    /// Runs the container to its end.
    fn run(&self) -> Result<()> {
        let run = self.runc().arg("run").arg("--bundle").arg(self.dir.path().join("bundle")).arg(&self.id);
        let status = Command::from(run).stdin(Stdio::null()).status()?;
        ensure!(status.success(), "the container failed ({status})");
        Ok(())
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // Where the container has ended there is nothing left to delete, which is no error with `--force`.
        drop(quietly(self.runc().args(["delete", "--force", &self.id])));
    }
}

/// A running `tracer`, killed when dropped.
struct Tracer {
    child: Child,
    ready: Receiver<()>,
    /// Prints its events and counts them.
    events: Option<JoinHandle<usize>>,
}

impl Tracer {
    fn start(program: &Path) -> Result<Self> {
        let mut child = Command::new(program)
            .args(["trace", "open", "-n", NAMESPACE, "--timeout", "10s"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = child.stdout.take().context("tracer has no stdout")?;
        let stderr = child.stderr.take().context("tracer has no stderr")?;
        let (is_ready, ready) = mpsc::channel();
        thread::spawn(move || {
            copy_lines(stderr, std::io::stderr(), |line| {
                if line.starts_with("tracer: ready") {
                    let _ = is_ready.send(());
                }
            });
        });
        let events = thread::spawn(move || {
            let mut count = 0;
            copy_lines(stdout, std::io::stdout(), |line| {
                count += usize::from(line.split_whitespace().any(|word| word == NAMESPACE));
            });
            count
        });
        Ok(Self { child, ready, events: Some(events) })
    }

    /// Stops it as Ctrl-C does: the number of events. It ends in any case when its timeout is over.
    fn stop(&mut self) -> Result<usize> {
        if self.child.try_wait()?.is_none() {
            kill_process(Pid::from_child(&self.child), Signal::INT)?;
        }
        let status = self.child.wait()?;
        ensure!(status.success(), "tracer failed ({status})");
        Ok(self.events.take().and_then(|events| events.join().ok()).unwrap_or(0))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn copy_lines(from: impl Read, mut to: impl Write, mut see: impl FnMut(&str)) {
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        // A closed pipe is no reason to stop reading: tracer would block.
        drop(writeln!(to, "{line}"));
        see(&line);
    }
}

/// To the operator: stdout is for the events.
fn tell(what: &str) {
    eprintln!("demo: {what}");
}
