//! Containers of an engine that is spoken to through a command line: docker, podman, `ctr`.

use std::process::{Command, Stdio};

use crate::wait::{self, LIMIT, Output};

/// An engine's command line, to which the words of a command are added.
#[derive(Debug, Clone)]
pub struct Client {
    program: std::path::PathBuf,
    globals: Vec<String>,
    creating: Vec<String>,
}

impl Client {
    /// `program`, the options that stand before every command, and those that every `create` gets.
    pub(crate) fn new(program: std::path::PathBuf, globals: Vec<String>, creating: Vec<String>) -> Self {
        Self { program, globals, creating }
    }

    /// The command line up to the command.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.globals);
        command
    }

    /// `create`: a container of [`IMAGE`] that does not run yet.
    #[track_caller]
    pub fn create(&self, options: &[&str], args: &[&str]) -> Container {
        let mut command = self.command();
        command.arg("create").args(&self.creating).args(options).arg(IMAGE).args(args);
        let output = wait::output(&mut command, LIMIT).success();
        // Warnings go to the standard error; the id is all there is here.
        Container { client: self.clone(), id: output.stdout.trim().to_owned() }
    }

    /// `create` and `start`, in the background.
    #[track_caller]
    pub fn run_detached(&self, options: &[&str], args: &[&str]) -> Container {
        let container = self.create(options, args);
        container.start();
        container
    }
}

/// The image that docker and podman make of busybox.
pub const IMAGE: &str = "localhost/tracer-test:1";

/// A container, removed when dropped.
#[derive(Debug)]
pub struct Container {
    client: Client,
    /// Its id: 64 hex digits.
    pub id: String,
}

impl Container {
    /// `start --attach`: to the container's end.
    #[track_caller]
    pub fn run(&self) -> Output {
        wait::output(self.client.command().args(["start", "--attach", &self.id]), LIMIT)
    }

    /// `start`.
    #[track_caller]
    pub fn start(&self) {
        wait::output(self.client.command().args(["start", &self.id]), LIMIT).success();
    }

    /// Whether its first process runs.
    pub fn is_running(&self) -> bool {
        let format = ["inspect", "--format", "{{.State.Running}}", &self.id];
        wait::output(self.client.command().args(format), LIMIT).stdout.trim() == "true"
    }

    /// `exec`, to the program's end.
    #[track_caller]
    pub fn exec(&self, args: &[&str]) -> Output {
        wait::output(self.client.command().args(["exec", &self.id]).args(args), LIMIT)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Not `wait::output`: it panics, and we may be here because of a panic.
        let status = self
            .client
            .command()
            .args(["rm", "--force", "--volumes", &self.id])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !matches!(&status, Ok(status) if status.success()) {
            eprintln!("harness: cannot remove container {}: {status:?}", self.id);
        }
    }
}
