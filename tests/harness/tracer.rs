//! The program under test.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::wait::{self, LIMIT, Output};
use crate::{NOBODY, scratch, shape};

/// Where the binary under test is: `TRACER_BIN`, or the release build of this workspace.
pub fn binary() -> PathBuf {
    std::env::var_os("TRACER_BIN").map_or_else(
        || {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent");
            workspace.join("target/release/tracer")
        },
        PathBuf::from,
    )
}

/// Likewise the binary `kubectl-tracer`: `KUBECTL_TRACER_BIN`.
pub fn kubectl_binary() -> PathBuf {
    std::env::var_os("KUBECTL_TRACER_BIN")
        .map_or_else(|| binary().with_file_name("kubectl-tracer"), PathBuf::from)
}

/// The numbers of the closing line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// What the kernel side saw.
    pub seen: u64,
    /// What was written to stdout.
    pub emitted: u64,
    /// What the selection left out.
    pub filtered: u64,
    /// What is missing.
    pub lost: u64,
}

/// A tracer that has ended.
#[derive(Debug)]
pub struct Finished {
    /// All lines of stdout that were read.
    pub stdout: Vec<String>,
    /// All lines of stderr.
    pub stderr: Vec<String>,
    /// How it ended.
    pub status: ExitStatus,
    /// The closing line, if there is one.
    pub summary: Option<Summary>,
}

impl Finished {
    /// The events among the lines, `lost` records left out.
    ///
    /// # Panics
    /// When a line is no JSON.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        self.records().into_iter().filter(|record| record["event"] != "lost").collect()
    }

    /// The `lost` records among the lines.
    #[track_caller]
    pub fn losses(&self) -> Vec<Value> {
        self.records().into_iter().filter(|record| record["event"] == "lost").collect()
    }

    /// How many events the `lost` records among the lines tell of. What was missed of containers is not an event.
    #[track_caller]
    pub fn told_lost(&self) -> u64 {
        let losses = self.losses();
        let of_events = losses.iter().filter(|loss| loss["lost"]["hook"] != "lifecycle");
        of_events.filter_map(|loss| loss["lost"]["count"].as_u64()).sum()
    }

    /// All lines as JSON.
    #[track_caller]
    pub fn records(&self) -> Vec<Value> {
        self.stdout.iter().map(|line| parse(line)).collect()
    }

    /// The closing numbers.
    ///
    /// # Panics
    /// When the last line of stderr is not the summary.
    #[track_caller]
    pub fn summary(&self) -> Summary {
        self.summary.unwrap_or_else(|| panic!("no summary line at the end of stderr:\n{}", self.log()))
    }

    /// The numbers of the line before the last: a tracer that fails says why behind its closing line.
    pub fn summary_before_error(&self) -> Option<Summary> {
        self.stderr.iter().rev().nth(1).and_then(|line| parse_summary(line))
    }

    /// Fails unless it ended as it must: exit code 0, a summary that adds up and agrees with what
    /// was written, and every JSON line as the contract has it.
    #[track_caller]
    pub fn assert_clean(self) -> Self {
        let Summary { emitted, lost, .. } = self.assert_adds_up();
        if self.stdout.first().is_some_and(|line| line.starts_with('{')) {
            let events = self.events();
            assert_eq!(emitted, events.len() as u64, "the summary's count and the lines differ");
            assert_eq!(
                lost,
                self.told_lost(),
                "the summary's losses and those in the stream differ:\n{}",
                self.log()
            );
            for event in self.records() {
                shape::check(&event);
            }
        }
        self
    }

    /// Fails unless it ended with exit code 0 and a summary that adds up. Returns that.
    #[track_caller]
    pub fn assert_adds_up(&self) -> Summary {
        assert_eq!(self.status.code(), Some(0), "ended with {}:\n{}", self.status, self.log());
        let summary = self.summary();
        let Summary { seen, emitted, filtered, lost } = summary;
        assert_eq!(seen, emitted + filtered + lost, "does not add up:\n{}", self.log());
        summary
    }

    /// Fails unless all went well for one whose stdout nobody read to the end, not even what it told of losses there: the
    /// pipe was full in the middle of a line, which was not emitted.
    #[track_caller]
    pub fn assert_cut_off(mut self) -> Self {
        self.stdout.retain(|line| !line.ends_with(NO_NEWLINE));
        let Summary { emitted, .. } = self.assert_adds_up();
        assert_eq!(emitted, self.events().len() as u64, "{}", self.log());
        self
    }

    /// Fails if anything was lost for want of room or time. (A container that could not be named
    /// is not counted here: it may be one that another test breaks on purpose.)
    #[track_caller]
    pub fn assert_nothing_dropped(&self) {
        let others = |loss: &Value| {
            // Nor are runtimes that nobody believes, when there are very many of them.
            let reason = loss["lost"]["reason"].as_str();
            matches!(reason, Some("unattributed" | "lifecycle-crowded" | "user-namespace"))
        };
        let dropped: Vec<Value> = self.losses().into_iter().filter(|loss| !others(loss)).collect();
        assert!(dropped.is_empty(), "lost: {dropped:?}");
    }

    /// Standard error as one text.
    pub fn log(&self) -> String {
        self.stderr.join("\n")
    }
}

/// How to start the tracer.
pub struct Launch {
    arguments: Vec<OsString>,
    prelude: Option<String>,
    uid: Option<u32>,
    wrapper: Vec<OsString>,
    binary: PathBuf,
    hold: bool,
    keep_stdin: bool,
    stall: bool,
    close_after: Option<usize>,
    pace: Duration,
}

impl Launch {
    /// With these arguments.
    pub fn new<S: Into<OsString> + Clone>(arguments: &[S]) -> Self {
        Self {
            arguments: arguments.iter().cloned().map(Into::into).collect(),
            prelude: None,
            uid: None,
            wrapper: Vec::new(),
            binary: binary(),
            hold: false,
            keep_stdin: false,
            stall: false,
            close_after: None,
            pace: Duration::ZERO,
        }
    }

    /// `kubectl tracer` with these arguments, by this kubeconfig.
    pub fn kubectl(kubeconfig: &Path, arguments: &[&str]) -> Self {
        let mut all: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        all.push(format!("--kubeconfig={}", kubeconfig.display()));
        Self::new(&all).binary(kubectl_binary())
    }

    /// In a mount namespace of its own, in which this shell command has been run.
    #[must_use]
    pub fn prelude(mut self, shell: &str) -> Self {
        self.prelude = Some(shell.into());
        self
    }

    /// As this user and group, without any capability.
    #[must_use]
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// As this user and group, with these capabilities (`bpf`, `sys_ptrace`) and supplementary groups.
    #[must_use]
    pub fn user(self, uid: u32, capabilities: &[&str], groups: &[u32]) -> Self {
        let only = capabilities.iter().fold("-all".to_owned(), |list, name| list + ",+" + name);
        let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
        let mut setpriv = vec![
            "setpriv".to_owned(),
            format!("--reuid={uid}"),
            format!("--regid={uid}"),
            format!("--inh-caps={only}"),
            format!("--ambient-caps={only}"),
            format!("--bounding-set={only}"),
        ];
        setpriv.push(match &groups[..] {
            [] => "--clear-groups".to_owned(),
            groups => format!("--groups={}", groups.join(",")),
        });
        self.wrapper(&setpriv)
    }

    /// As an agent on a node runs: without root, with the capabilities that docs/reference.md names. The binary must be
    /// one that everybody may execute ([`copy`]).
    #[must_use]
    pub fn agent(self) -> Self {
        // Before Linux 5.11 maps count against this, and raising it takes a capability that agents do not have.
        self.prelude("ulimit -l unlimited 2> /dev/null || true").user(
            NOBODY,
            &["bpf", "perfmon", "sys_ptrace", "dac_read_search"],
            &[],
        )
    }

    /// By a command that executes what is behind it.
    #[must_use]
    pub fn wrapper<S: Into<OsString> + Clone>(mut self, command: &[S]) -> Self {
        self.wrapper = command.iter().cloned().map(Into::into).collect();
        self
    }

    /// From this file.
    #[must_use]
    pub fn binary(mut self, path: PathBuf) -> Self {
        self.binary = path;
        self
    }

    /// Nobody reads its stdout until [`Tracer::read_on`].
    #[must_use]
    pub fn hold_stdout(mut self) -> Self {
        self.hold = true;
        self
    }

    /// Its stdin is a pipe, which [`Tracer::tell`] writes to.
    #[must_use]
    pub fn keep_stdin(mut self) -> Self {
        self.keep_stdin = true;
        self
    }

    /// Nobody reads its stderr behind `tracer: ready` until [`Tracer::read_stderr_on`].
    #[must_use]
    pub fn stall_stderr(mut self) -> Self {
        self.stall = true;
        self
    }

    /// The reader of its stdout goes away after so many lines.
    #[must_use]
    pub fn close_stdout_after(mut self, lines: usize) -> Self {
        self.close_after = Some(lines);
        self
    }

    /// The reader of its stdout takes a page at a time, and so long a rest between.
    #[must_use]
    pub fn slow_stdout(mut self, pace: Duration) -> Self {
        self.pace = pace;
        self
    }

    fn command(&self) -> Command {
        let mut words: Vec<OsString> = Vec::new();
        if let Some(shell) = &self.prelude {
            words.extend(["unshare", "--mount", "--propagation", "private", "sh", "-c"].map(Into::into));
            words.push(format!("{shell} && exec \"$0\" \"$@\"").into());
        }
        words.extend(self.wrapper.iter().cloned());
        words.push(self.binary.clone().into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(&self.arguments);
        if let (true, Some(hook)) = (self.traces_opens(), std::env::var_os("TRACER_TEST_HOOK")) {
            command.arg("--hook").arg(hook);
        }
        // Whatever the caller's shell sets, the tests see the defaults.
        for name in ["RUST_LOG", "NO_COLOR", "CLICOLOR_FORCE", "COLUMNS", "NODE_NAME"] {
            command.env_remove(name);
        }
        if let Some(uid) = self.uid {
            // Leaving uid 0 drops every capability; supplementary groups go with it.
            command.uid(uid).gid(uid);
        }
        command
    }

    /// Whether it is `trace open` with options, none of them the hook.
    fn traces_opens(&self) -> bool {
        let is =
            |index: usize, word: &str| self.arguments.get(index).is_some_and(|argument| argument == word);
        is(0, "trace") && is(1, "open") && !self.arguments.iter().any(|argument| argument == "--hook")
    }

    /// Runs it to its end: for what ends by itself.
    #[track_caller]
    pub fn output(&self) -> Output {
        wait::output(&mut self.command(), LIMIT)
    }

    /// Starts it and waits for its `tracer: ready`.
    ///
    /// # Panics
    /// With its stderr, if that line does not come.
    #[track_caller]
    pub fn start(self) -> Tracer {
        let tracer = self.begin();
        tracer.wait_ready();
        tracer
    }

    /// Starts it, and waits for nothing.
    #[track_caller]
    pub fn begin(self) -> Tracer {
        let mut command = self.command();
        let stdin = if self.keep_stdin { Stdio::piped() } else { Stdio::null() };
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = wait::spawn(&mut command);
        let (stdout, stderr) = (Arc::new(Lines::default()), Arc::new(Lines::default()));
        let (gate, opened) = mpsc::channel();
        let pipe = child.stdout.take().expect("piped");
        let lines = Arc::clone(&stdout);
        let (close_after, pace) = (self.close_after, self.pace);
        std::thread::spawn(move || {
            // An error means that the tracer was dropped: then the pipe goes too.
            if opened.recv().is_ok() {
                lines.collect(BufReader::with_capacity(PAGE, Paced { pipe, pace }), close_after);
            }
            lines.close();
        });
        let pipe = child.stderr.take().expect("piped");
        let lines = Arc::clone(&stderr);
        let (stderr_gate, stderr_opened) = mpsc::channel();
        let stall = self.stall;
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            if stall {
                lines.collect_until(&mut pipe, |line| line.starts_with(READY));
                let _ = stderr_opened.recv();
            }
            lines.collect(pipe, None);
            lines.close();
        });
        let mut tracer = Tracer {
            stdin: child.stdin.take(),
            child,
            stdout,
            stderr,
            gate: Some(gate),
            stderr_gate: Some(stderr_gate),
            status: None,
        };
        if !self.hold {
            tracer.read_on();
        }
        tracer
    }
}

/// What is put behind a line that was not ended.
const NO_NEWLINE: &str = " [NO NEWLINE AT THE END]";
/// How the line begins that says that everything is attached.
const READY: &str = "tracer: ready";

/// The binary under test where everyone may execute it.
pub fn copy() -> (scratch::Dir, PathBuf) {
    let dir = scratch::Dir::new("bin");
    let path = dir.path().join("tracer");
    fs::copy(binary(), &path).expect("our own directory");
    (dir, path)
}

/// What a slow reader takes at a time, in bytes.
const PAGE: usize = 4096;

/// A pipe that is read no faster than at a pace.
struct Paced {
    pipe: ChildStdout,
    pace: Duration,
}

impl Read for Paced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.pace.is_zero() {
            std::thread::sleep(self.pace);
        }
        self.pipe.read(buffer)
    }
}

/// A running tracer. Killed when dropped.
pub struct Tracer {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Arc<Lines>,
    stderr: Arc<Lines>,
    gate: Option<Sender<()>>,
    stderr_gate: Option<Sender<()>>,
    status: Option<ExitStatus>,
}

impl Tracer {
    /// Starts the tracer with these arguments and waits until it is ready.
    #[track_caller]
    pub fn start<S: Into<OsString> + Clone>(arguments: &[S]) -> Self {
        Launch::new(arguments).start()
    }

    /// `trace open -o json`, restricted to a namespace.
    #[track_caller]
    pub fn open(namespace: &str) -> Self {
        Self::start(&["trace", "open", "-n", namespace, "-o", "json"])
    }

    /// `trace exec -o json`, restricted to a namespace.
    #[track_caller]
    pub fn exec(namespace: &str) -> Self {
        Self::start(&["trace", "exec", "-n", namespace, "-o", "json"])
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its stdin, after [`Launch::keep_stdin`].
    #[track_caller]
    pub fn tell(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().expect("its stdin is kept").write_all(bytes).expect("it reads its stdin");
    }

    /// Closes its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Lets the reader of stdout begin, after [`Launch::hold_stdout`].
    pub fn read_on(&mut self) {
        if let Some(gate) = self.gate.take() {
            let _ = gate.send(());
        }
    }

    /// Lets the reader of stderr go on, after [`Launch::stall_stderr`].
    pub fn read_stderr_on(&mut self) {
        if let Some(gate) = self.stderr_gate.take() {
            let _ = gate.send(());
        }
    }

    #[track_caller]
    fn wait_ready(&self) {
        let ready = |lines: &[String]| lines.iter().any(|line| line.starts_with(READY));
        let found = self.stderr.wait(LIMIT, |lines| ready(lines).then_some(()));
        assert!(found.is_some(), "no line `tracer: ready`; stderr:\n{}", self.log());
    }

    /// What it has written to stderr so far.
    pub fn log(&self) -> String {
        self.stderr.get().lines.join("\n")
    }

    /// Waits for an event of which `wanted` says yes, and returns the first.
    ///
    /// # Panics
    /// With the tracer's stderr and last events, if none comes.
    #[track_caller]
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut looked_at = 0;
        let found = self.stdout.wait(LIMIT, |lines| {
            let fresh = &lines[looked_at..];
            looked_at = lines.len();
            fresh.iter().map(|line| parse(line)).find(|event| wanted(event))
        });
        found.unwrap_or_else(|| {
            let state = self.stdout.get();
            // Those of containers: with --host, others come by the thousand.
            let of_containers = state.lines.iter().filter(|line| !line.contains("\"container\":null"));
            let tail: Vec<&String> = of_containers.rev().take(10).collect();
            panic!(
                "no event: {what} ({} lines so far, the containers' last: {tail:#?})\nstderr:\n{}",
                state.lines.len(),
                self.log()
            )
        })
    }

    /// Waits for the open of `path`: a container's last act, after which all its events are known.
    #[track_caller]
    pub fn wait_open(&self, path: &str) -> Value {
        self.wait_for(&format!("open of {path}"), |event| event["open"]["path"] == path)
    }

    /// Waits for the exec of a program one of whose arguments is `argument`.
    #[track_caller]
    pub fn wait_exec(&self, argument: &str) -> Value {
        self.wait_for(&format!("exec with argument {argument}"), |event| {
            event["exec"]["args"].as_array().is_some_and(|args| args.iter().any(|arg| arg == argument))
        })
    }

    /// Waits for a line of stdout, whatever the format.
    #[track_caller]
    pub fn wait_line(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.stdout.wait(LIMIT, |lines| lines.iter().find(|line| wanted(line)).cloned()).unwrap_or_else(
            || {
                panic!(
                    "no line: {what}; stdout:\n{}\nstderr:\n{}",
                    self.stdout.get().lines.join("\n"),
                    self.log()
                )
            },
        )
    }

    /// Waits for a line of stderr.
    #[track_caller]
    pub fn wait_log(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.stderr
            .wait(LIMIT, |lines| lines.iter().find(|line| wanted(line)).cloned())
            .unwrap_or_else(|| panic!("no line on stderr: {what}; stderr:\n{}", self.log()))
    }

    /// The events written so far.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        self.stdout.get().lines.iter().map(|line| parse(line)).collect()
    }

    /// Waits until stderr has so many such lines.
    #[track_caller]
    pub fn wait_logs(&self, what: &str, count: usize, wanted: impl Fn(&str) -> bool) {
        let enough = |lines: &[String]| lines.iter().filter(|line| wanted(line)).count() >= count;
        let found = self.stderr.wait(LIMIT, |lines| enough(lines).then_some(()));
        assert!(found.is_some(), "not {count} lines on stderr: {what}; stderr:\n{}", self.log());
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("not zero");
        // Not reaped before `wait_end`: the pid is still its own.
        kill_process(pid, signal).expect("our own child");
    }

    /// Takes the CPU from it until [`Tracer::resume`]: all of its threads have stopped on return.
    #[track_caller]
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let tasks = PathBuf::from(format!("/proc/{}/task", self.child.id()));
        wait::until("all threads of the tracer have stopped", || {
            let mut states = fs::read_dir(&tasks).ok()?.flatten().map(|task| {
                // The state is what follows the name, which is in parentheses (proc_pid_stat(5)).
                let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
            });
            states.all(|stopped| stopped).then_some(())
        });
    }

    /// Lets it go on after [`Tracer::pause`].
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it as an operator does, by SIGINT, and checks that it ended well.
    #[track_caller]
    pub fn stop(self) -> Finished {
        self.signal(Signal::INT);
        self.wait_end().assert_clean()
    }

    /// Waits until it ends.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn wait_end(mut self) -> Finished {
        let Some(status) = wait::exit_of(&mut self.child, LIMIT) else {
            panic!("still running after {LIMIT:?}; stderr:\n{}", self.log());
        };
        self.status = Some(status);
        self.read_on();
        self.read_stderr_on();
        // The pipes end with the process, unless it handed them on: which is a failure.
        let stdout = self.stdout.wait_closed("stdout");
        let stderr = self.stderr.wait_closed("stderr");
        let summary = stderr.last().and_then(|line| parse_summary(line));
        Finished { stdout, stderr, status, summary }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if self.status.is_none() {
            // Ours and not reaped: the pid cannot be someone else's.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[track_caller]
fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"))
}

fn parse_summary(line: &str) -> Option<Summary> {
    // The reasons of losses follow in parentheses.
    let numbers = line.split_once(" (").map_or(line, |(numbers, _)| numbers);
    let words: Vec<&str> = numbers.strip_prefix("tracer: ")?.split(' ').collect();
    let numbers: BTreeMap<&str, u64> = words
        .as_chunks()
        .0
        .iter()
        .map(|[key, value]| Some((*key, value.parse().ok()?)))
        .collect::<Option<_>>()?;
    if words.len() != 8 {
        return None;
    }
    Some(Summary {
        seen: *numbers.get("seen")?,
        emitted: *numbers.get("emitted")?,
        filtered: *numbers.get("filtered")?,
        lost: *numbers.get("lost")?,
    })
}

/// Lines that a thread reads and a test waits for.
#[derive(Default)]
struct Lines {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    closed: bool,
}

impl Lines {
    fn get(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(&self, reader: impl BufRead, limit: Option<usize>) {
        let mut left = limit;
        if left != Some(0) {
            self.collect_until(reader, |_| {
                left = left.map(|left| left - 1);
                left == Some(0)
            });
        }
    }

    /// Collects lines to the end, or the one of which `is_last` says so.
    fn collect_until(&self, mut reader: impl BufRead, mut is_last: impl FnMut(&str) -> bool) {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            // An error is an end: the process is gone.
            if !matches!(reader.read_until(b'\n', &mut bytes), Ok(length) if length > 0) {
                return;
            }
            let mut line = String::from_utf8(bytes.clone())
                .unwrap_or_else(|error| format!("NOT UTF-8 ({error}): {}", bytes.escape_ascii()));
            if line.ends_with('\n') {
                line.pop();
            } else {
                line.push_str(NO_NEWLINE);
            }
            let over = is_last(&line);
            self.get().lines.push(line);
            self.changed.notify_all();
            if over {
                return;
            }
        }
    }

    fn close(&self) {
        self.get().closed = true;
        self.changed.notify_all();
    }

    /// Calls `look` on the lines, again whenever there are more, until it answers, the stream ends
    /// or the limit is reached.
    fn wait<T>(&self, limit: Duration, mut look: impl FnMut(&[String]) -> Option<T>) -> Option<T> {
        let end = Instant::now() + wait::stretched(limit);
        let mut state = self.get();
        loop {
            if let Some(found) = look(&state.lines) {
                return Some(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    #[track_caller]
    fn wait_closed(&self, what: &str) -> Vec<String> {
        let end = Instant::now() + wait::stretched(LIMIT);
        let mut state = self.get();
        while !state.closed {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} is still open although the process has ended");
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::take(&mut state.lines)
    }
}
