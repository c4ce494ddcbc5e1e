//! runc, crun and youki, as an engine calls them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde_json::Value;

use crate::wait::{self, LIMIT, Output};
use crate::{Bundle, need, scratch};

/// Which runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// <https://github.com/opencontainers/runc>
    Runc,
    /// <https://github.com/containers/crun>
    Crun,
    /// <https://github.com/youki-dev/youki>
    Youki,
}

/// The ways in which a command line can name a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// `-b /path`
    Short,
    /// `--bundle /path`
    Long,
    /// `--bundle=/path`
    Equals,
    /// `--bundle name`, from the directory above
    Relative,
    /// Not at all: the working directory is the bundle.
    Cwd,
    /// `--bundle /dir/var/run/name`, where `/dir/var/run` is an absolute symbolic link.
    Symlink,
}

/// A runtime with a root directory of its own. Whatever still runs there when it is dropped, is
/// deleted.
#[derive(Debug)]
pub struct Runtime {
    kind: Kind,
    program: PathBuf,
    root: scratch::Dir,
}

impl Runtime {
    /// Debian's runc.
    pub fn runc() -> Self {
        Self::new(Kind::Runc)
    }

    /// Debian's crun.
    pub fn crun() -> Self {
        Self::new(Kind::Crun)
    }

    /// Any of them.
    pub fn new(kind: Kind) -> Self {
        let name = match kind {
            Kind::Runc => "runc",
            Kind::Crun => "crun",
            Kind::Youki => "youki",
        };
        let program = need::find(name).expect("the test declares that it needs this runtime");
        Self { kind, program, root: scratch::Dir::new(name) }
    }

    /// The same runtime and root directory, called by another path: a wrapper, a copy.
    #[must_use]
    pub fn called(mut self, program: &Path) -> Self {
        self.program = program.into();
        self
    }

    /// The file that is executed.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Its root directory (`--root`).
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// `runc --root ROOT`, to be completed.
    pub fn command(&self) -> Command {
        let mut command = self.bare();
        command.arg("--root").arg(self.root.path());
        command
    }

    /// The runtime without any argument.
    pub fn bare(&self) -> Command {
        if self.kind == Kind::Crun && hybrid_cgroups() {
            // crun refuses a v1 host whose v2 tree has a controller left. In a mount namespace of
            // its own, it is shown an empty list of controllers: nothing changes for anyone else, as
            // it would by moving the controller away. `exec`: the runtime is the process we wait for.
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private", "sh", "-c"]);
            command.arg(r#"mount --bind "$0" /sys/fs/cgroup/unified/cgroup.controllers && exec "$@""#);
            command.arg(empty_file()).arg(&self.program);
            command
        } else {
            Command::new(&self.program)
        }
    }

    /// `runc run`, to the container's end.
    #[track_caller]
    pub fn run(&self, bundle: &Bundle) -> Output {
        self.run_naming(bundle, Naming::Long)
    }

    /// [`Runtime::run`], with the bundle named in one of several ways.
    #[track_caller]
    pub fn run_naming(&self, bundle: &Bundle, naming: Naming) -> Output {
        let mut command = self.command();
        command.arg("run");
        let _link = name_bundle(&mut command, bundle, naming);
        if self.kind == Kind::Youki {
            return self.run_in_background(command, bundle);
        }
        wait::output(command.arg(&bundle.id), LIMIT)
    }

    /// youki 0.7 misses the end of a container that ends at once, and waits for ever. What the
    /// container exits with is not known.
    #[track_caller]
    fn run_in_background(&self, mut command: Command, bundle: &Bundle) -> Output {
        for name in ["stdout", "stderr"] {
            let _ = fs::remove_file(bundle.path().join(name));
        }
        detach(command.arg("--detach").arg(&bundle.id), bundle);
        self.wait_stopped(bundle);
        self.delete(bundle);
        let stderr = fs::read_to_string(bundle.path().join("stderr")).expect("a detached container's output");
        Output { status: ExitStatus::default(), stdout: Self::stdout_of(bundle), stderr }
    }

    /// `runc run --detach`, its output in files beside the bundle's.
    #[track_caller]
    pub fn run_detached(&self, bundle: &Bundle) {
        let mut command = self.command();
        command.args(["run", "--detach", "--bundle"]).arg(bundle.path()).arg(&bundle.id);
        detach(&mut command, bundle);
    }

    /// `runc create`.
    #[track_caller]
    pub fn create(&self, bundle: &Bundle) {
        self.create_naming(bundle, Naming::Long);
    }

    /// [`Runtime::create`], with the bundle named in one of several ways.
    #[track_caller]
    pub fn create_naming(&self, bundle: &Bundle, naming: Naming) {
        let mut command = self.command();
        command.arg("create");
        let _link = name_bundle(&mut command, bundle, naming);
        detach(command.arg(&bundle.id), bundle);
    }

    /// `runc start`.
    #[track_caller]
    pub fn start(&self, bundle: &Bundle) {
        wait::output(self.command().args(["start", &bundle.id]), LIMIT).success();
    }

    /// `runc exec`, to the program's end.
    #[track_caller]
    pub fn exec(&self, bundle: &Bundle, args: &[&str]) -> Output {
        wait::output(self.command().args(["exec", &bundle.id]).args(args), LIMIT)
    }

    /// The pid of the container's first process, as the host sees it; `None` when there is no such
    /// container or it has stopped.
    pub fn init_pid(&self, bundle: &Bundle) -> Option<i32> {
        let output = wait::output(self.command().args(["state", &bundle.id]), LIMIT);
        let state: Value = serde_json::from_str(&output.stdout).ok()?;
        if state["status"] == "stopped" {
            return None;
        }
        state["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0)
    }

    /// Waits until the container's first process has ended.
    #[track_caller]
    pub fn wait_stopped(&self, bundle: &Bundle) {
        wait::until(&format!("the end of container {}", bundle.id), || {
            self.init_pid(bundle).is_none().then_some(())
        });
    }

    /// `runc delete --force`.
    #[track_caller]
    pub fn delete(&self, bundle: &Bundle) {
        wait::output(self.command().args(["delete", "--force", &bundle.id]), LIMIT).success();
    }

    /// What a detached container has printed so far.
    pub fn stdout_of(bundle: &Bundle) -> String {
        fs::read_to_string(bundle.path().join("stdout")).expect("a detached container's output")
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.root.path()).into_iter().flatten().flatten() {
            // crun keeps a file `.cache` or the like beside the containers' directories.
            if !entry.path().is_dir() {
                continue;
            }
            let id = entry.file_name();
            // Not `wait::output`: it panics, and we may be here because of a panic.
            let status = self
                .command()
                .args(["delete", "--force"])
                .arg(&id)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            if !matches!(&status, Ok(status) if status.success()) {
                eprintln!("harness: cannot delete container {}: {status:?}", id.display());
            }
        }
    }
}

/// Where an engine's runtimes keep their state: a link to that of a test's own runtime, so that its
/// containers are found. Removed when dropped.
#[derive(Debug)]
pub struct KnownRoot(PathBuf);

impl KnownRoot {
    /// The link.
    pub fn new(runtime: &Runtime) -> Self {
        let parent = Path::new("/run/containerd/runc");
        fs::create_dir_all(parent).expect("the engines' directory");
        let link = parent.join(scratch::unique("tracer-test"));
        symlink(runtime.root(), &link).expect("a fresh name");
        Self(link)
    }
}

impl Drop for KnownRoot {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

/// Adds the bundle to a command line. What it returns must live until the command has ended.
pub fn name_bundle(command: &mut Command, bundle: &Bundle, naming: Naming) -> Option<scratch::Dir> {
    let path = bundle.path();
    match naming {
        Naming::Short => command.arg("-b").arg(path),
        Naming::Long => command.arg("--bundle").arg(path),
        Naming::Equals => command.arg(format!("--bundle={}", path.display())),
        Naming::Relative => {
            let (parent, name) = (path.parent().expect("a parent"), path.file_name().expect("a name"));
            command.arg("--bundle").arg(name).current_dir(parent)
        }
        Naming::Cwd => command.current_dir(path),
        Naming::Symlink => {
            let dir = scratch::Dir::new("link");
            fs::create_dir(dir.path().join("var")).expect("our own directory");
            let run = path.parent().expect("a parent");
            symlink(run, dir.path().join("var/run")).expect("our own directory");
            let name = path.file_name().expect("a name");
            command.arg("--bundle").arg(dir.path().join("var/run").join(name));
            return Some(dir);
        }
    };
    None
}

/// Runs a command that leaves a container behind, which inherits its standard streams.
#[track_caller]
fn detach(command: &mut Command, bundle: &Bundle) {
    let file = |name: &str| -> io::Result<File> {
        File::options().append(true).create(true).open(bundle.path().join(name))
    };
    command.stdin(Stdio::null());
    command.stdout(file("stdout").expect("our own directory"));
    command.stderr(file("stderr").expect("our own directory"));
    let mut child = wait::spawn(command);
    let status = wait::exit_of(&mut child, LIMIT);
    assert!(
        status.is_some_and(|status| status.success()),
        "{command:?} ended with {status:?}: {}",
        fs::read_to_string(bundle.path().join("stderr")).unwrap_or_default()
    );
}

fn hybrid_cgroups() -> bool {
    // On a v1 host that has a v2 tree besides, with controllers in it.
    fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers")
        .is_ok_and(|controllers| !controllers.trim().is_empty())
}

fn empty_file() -> PathBuf {
    let path = scratch::root().join("empty");
    // Written by whoever comes first; the content is the same.
    fs::write(&path, "").expect("our own directory");
    path
}
