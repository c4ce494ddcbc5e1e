//! One invocation of a runtime, from the record of its execution to the container it is about.

use std::{
    fmt::Display,
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::runtime::Handle;
use tracer_common::{
    comm_bytes,
    container::{ContainerKey, NANOSECONDS_PER_TICK},
    lifecycle::{
        RUNTIME_ARGS_FAULT, RUNTIME_ARGS_TRUNCATED, Runtime, TRUST_PID_NS, TRUST_ROOT, TRUST_ROOT_DIR,
        TRUST_USER_NS, TRUSTED,
    },
};
use tracing::{debug, warn};

use super::{
    bundle::{self, Bundle},
    cgroup,
    cmdline::{self, Command, CommandLine},
    process::{self, RuntimeProcess},
    running::Running,
    state,
};
use crate::containers::{Container, ContainerType, Lookup, Registry, Source, Unknown};

/// A runtime's invocation that brings a process into a container, with a hold on what it sees of the file system.
#[derive(Debug)]
pub struct Invocation {
    key: ContainerKey,
    runtime: String,
    process: Option<RuntimeProcess>,
    state_root: Option<PathBuf>,
    task: Task,
}

/// What is to be found out.
#[derive(Debug)]
enum Task {
    /// A container comes into being, or is there, with this `config.json`.
    Read { id: String, config: PathBuf, source: Source },
    /// A process joins a container.
    Join { id: String },
    /// The command line, or who gave it, does not say which container it is: its cgroup may, once there is one.
    Unknown { id: String, trust: Option<u32> },
}

impl Invocation {
    /// From a record of a runtime's execution, while the runtime is still there. None where it brings no process
    /// into any container.
    pub fn of_record(record: &Runtime, args: &[u8], key: ContainerKey) -> Option<Self> {
        let runtime = name_of(record);
        let process = match RuntimeProcess::open(record.record.pid, record.start_time / NANOSECONDS_PER_TICK)
        {
            Ok(process) => Some(process),
            Err(error) => {
                debug!("{runtime}: {error}");
                None
            }
        };
        let line = read_command_line(record, args, process.as_ref());
        Self::new(key, runtime, process, line, record.trust)
    }

    /// From a runtime that is at work.
    pub fn of_process(
        key: ContainerKey,
        runtime: String,
        process: RuntimeProcess,
        cmdline: &[u8],
        trust: u32,
    ) -> Option<Self> {
        let line = parse(cmdline, false, runtime.as_bytes());
        Self::new(key, runtime, Some(process), line, trust)
    }

    /// From a container that runs.
    pub fn of_running(key: ContainerKey, container: &Running) -> Self {
        let id = container.id.clone();
        let config = container.bundle.join("config.json");
        Self {
            key,
            runtime: container.runtime.clone(),
            process: None,
            state_root: container.state_root.clone(),
            task: Task::Read { id, config, source: Source::State },
        }
    }

    fn new(
        key: ContainerKey,
        runtime: String,
        process: Option<RuntimeProcess>,
        line: Result<CommandLine, String>,
        trust: u32,
    ) -> Option<Self> {
        if trust != TRUSTED {
            if matches!(line, Ok(CommandLine { command: Command::Other, .. })) {
                return None;
            }
            // Nothing of it is looked at: its view of the file system may be made to hang.
            warn_of_distrust(&runtime, line.as_ref().ok(), trust);
            return Some(Self::unknown(key, runtime, Some(trust)));
        }
        let line = match line {
            Ok(line) => line,
            Err(problem) => {
                warn!("{runtime}: {problem}: its container is shown without pod");
                return Some(Self::unknown(key, runtime, None));
            }
        };
        let default_root = || Path::new("/run").join(&runtime);
        let state_root = absolute(process.as_ref(), &line.root.unwrap_or_else(default_root));
        let task = match line.command {
            Command::Other => return None,
            Command::Create(creation) | Command::Run(creation) | Command::Restore(creation) => {
                let id = creation.id.to_string_lossy().into_owned();
                let bundle = bundle(process.as_ref(), &creation.bundle.unwrap_or_default());
                let config = match creation.config {
                    // crun takes a file elsewhere from its own working directory.
                    Some(config) if config != Path::new("config.json") => absolute(process.as_ref(), &config),
                    _ => bundle.join("config.json"),
                };
                Task::Read { id, config, source: Source::Bundle }
            }
            Command::Exec(exec) => Task::Join { id: exec.id.to_string_lossy().into_owned() },
        };
        Some(Self { key, runtime, process, state_root: Some(state_root), task })
    }

    /// `trust` is what speaks for a runtime that is not believed; None for one that is, but not understood.
    fn unknown(key: ContainerKey, runtime: String, trust: Option<u32>) -> Self {
        let task = Task::Unknown { id: String::new(), trust };
        Self { key, runtime, process: None, state_root: None, task }
    }

    /// Whether only the container's cgroup can tell which container it is.
    pub fn needs_cgroup(&self) -> bool {
        matches!(self.task, Task::Unknown { .. })
    }

    /// The container's first process is there, in a cgroup of this name; without one in the unified hierarchy, the
    /// others may tell.
    pub fn set_cgroup(&mut self, name: &str, pid: u32) {
        // Who is not root of the host may have cgroups to name as another's container.
        const ROOT: u32 = TRUST_ROOT | TRUST_USER_NS;
        if let Task::Unknown { id, trust } = &mut self.task
            && trust.is_none_or(|trust| trust & ROOT == ROOT)
        {
            *id = cgroup::id_of(name).or_else(|| cgroup::id_of_process(pid)).unwrap_or_default();
        }
    }

    /// The key that the kernel side gave it.
    pub const fn key(&self) -> ContainerKey {
        self.key
    }

    /// By what `exec` names the container that this brings into being.
    pub fn name(&self) -> Option<(PathBuf, String)> {
        match &self.task {
            Task::Read { id, .. } => Some((self.state_root.clone()?, id.clone())),
            Task::Join { .. } | Task::Unknown { .. } => None,
        }
    }

    /// Finds the container, reading files where that is needed: to be called where waiting does no harm.
    pub fn container(&self, registry: &Registry) -> Arc<Container> {
        match &self.task {
            // Pods are the host's runtimes' alone.
            Task::Unknown { id, trust } => {
                let why = Some(if trust.is_some() { Unknown::Untrusted } else { Unknown::NotUnderstood });
                Arc::new(Container { why, pod_known: trust.is_some(), ..self.without_bundle(id) })
            }
            Task::Read { id, config, source } if config.is_absolute() => {
                Arc::new(self.read_bundle(id, config, *source))
            }
            // The runtime has ended, and with it the directory that its path began from.
            Task::Read { id, .. } => Arc::new(self.read_state(id)),
            Task::Join { id } => match registry.find(self.state_root(), id) {
                Lookup::Known(attribution) => Arc::clone(&attribution.container),
                Lookup::Pending | Lookup::Unknown => Arc::new(self.read_state(id)),
            },
        }
    }

    fn state_root(&self) -> &Path {
        self.state_root.as_deref().unwrap_or(Path::new("/run/runc"))
    }

    fn read_state(&self, id: &str) -> Container {
        match self.read(|root| state::read(root, self.state_root(), id)) {
            Ok(state) => self.read_bundle(id, &state.bundle.join("config.json"), Source::State),
            Err(problem) => {
                warn!("container {id:?} is shown without pod: {problem}");
                self.without_bundle(id)
            }
        }
    }

    fn read_bundle(&self, id: &str, config: &Path, source: Source) -> Container {
        match self.read(|root| bundle::read(root, config)) {
            Ok(Bundle { engine, kind, image, pod }) => Container {
                id: id.to_owned(),
                runtime: engine.map_or_else(|| self.runtime.clone(), str::to_owned),
                kind,
                image,
                source,
                why: None,
                outer: None,
                inner: None,
                isolation: None,
                pod,
                pod_known: true,
            },
            Err(problem) => {
                warn!("container {id:?} is shown without pod: {problem}");
                Container { source, ..self.without_bundle(id) }
            }
        }
    }

    fn without_bundle(&self, id: &str) -> Container {
        Container {
            id: id.to_owned(),
            runtime: self.runtime.clone(),
            kind: ContainerType::Container,
            image: None,
            source: Source::Cgroup,
            why: Some(Unknown::Unreadable),
            outer: None,
            inner: None,
            isolation: None,
            pod: None,
            pod_known: false,
        }
    }

    /// Reads something below the runtime's root directory; below the host's for one that has ended, as being trusted
    /// says that they are one.
    fn read<T, E: Display>(&self, read: impl FnOnce(BorrowedFd<'_>) -> Result<T, E>) -> Result<T, String> {
        let result = match &self.process {
            Some(process) => read(process.root()),
            None => read(process::host_root().map_err(|error| error.to_string())?.as_fd()),
        };
        result.map_err(|error| error.to_string())
    }
}

/// Has a container found out without waiting for it: on a thread of `readers`.
pub fn learn(invocation: Invocation, registry: &Arc<Registry>, readers: &Handle) {
    registry.announce(invocation.key(), invocation.name());
    let registry = Arc::clone(registry);
    readers.spawn_blocking(move || {
        let container = invocation.container(&registry);
        registry.resolve(invocation.key(), container);
    });
}

/// The bundle that a runtime was given, from its root. Runtimes go there, so a relative path is one from where
/// they were, or, if they have gone already, the end of where they are.
fn bundle(process: Option<&RuntimeProcess>, given: &Path) -> PathBuf {
    let path = absolute(process, given);
    if let Some(process) = process
        && given.is_relative()
        && process.cwd().ends_with(given)
        && !process.has(&path.join("config.json"))
    {
        return process.cwd().to_owned();
    }
    path
}

/// A path that the runtime was given, from its root. Should the runtime be gone, a relative path stays one.
fn absolute(process: Option<&RuntimeProcess>, path: &Path) -> PathBuf {
    process.map_or_else(|| path.to_owned(), |process| process.absolute(path))
}

/// The command line from the record, or, where it does not fit into one, from the runtime itself.
fn read_command_line(
    record: &Runtime,
    args: &[u8],
    process: Option<&RuntimeProcess>,
) -> Result<CommandLine, String> {
    let comm = comm_bytes(&record.comm);
    let whole = record.marks & (RUNTIME_ARGS_TRUNCATED | RUNTIME_ARGS_FAULT) == 0;
    if whole {
        return parse(args, false, comm);
    }
    match process.map(RuntimeProcess::cmdline) {
        Some(Ok(cmdline)) => parse(&cmdline, false, comm),
        Some(Err(error)) => Err(error.to_string()),
        None => parse(args, true, comm),
    }
}

/// What the command line of a process with this comm says.
fn parse(block: &[u8], truncated: bool, comm: &[u8]) -> Result<CommandLine, String> {
    cmdline::parse(without_interpreter(block, comm), truncated).map_err(|error| error.to_string())
}

/// The command line from the runtime's own name on: a script's begins with its interpreter's.
fn without_interpreter<'a>(block: &'a [u8], comm: &[u8]) -> &'a [u8] {
    /// An interpreter, its one argument, and a chance more: `env` has none.
    const WORDS: usize = 4;
    let mut start = 0;
    for word in block.split(|byte| *byte == 0).take(WORDS) {
        let name = word.rsplit(|byte| *byte == b'/').next().unwrap_or(word);
        if name.get(..comm.len().max(1)) == Some(comm) && (name.len() == comm.len() || comm.len() == 15) {
            return &block[start..];
        }
        start += word.len() + 1;
    }
    block
}

fn name_of(record: &Runtime) -> String {
    String::from_utf8_lossy(comm_bytes(&record.comm)).into_owned()
}

/// Says that a runtime is not believed, not even its container's id, which might be another's. Whoever may execute
/// what is called like a runtime can make this happen, so it is said a few times only.
#[expect(clippy::unnecessary_debug_formatting, reason = "it escapes what a hostile command line may hold")]
fn warn_of_distrust(runtime: &str, line: Option<&CommandLine>, trust: u32) {
    const WARNINGS: u32 = 20;
    static WARNED: AtomicU32 = AtomicU32::new(0);
    let what = match line.map(|line| &line.command) {
        Some(Command::Create(creation) | Command::Run(creation) | Command::Restore(creation)) => {
            format!(
                "container {:?} with bundle {:?}",
                creation.id,
                creation.bundle.clone().unwrap_or_default()
            )
        }
        Some(Command::Exec(exec)) => format!("a process for container {:?}", exec.id),
        Some(Command::Other) | None => "a container".to_owned(),
    };
    let why = distrust(trust);
    if WARNED.fetch_add(1, Ordering::Relaxed) < WARNINGS {
        warn!("{runtime} claims to start {what} and is not believed, since {why}: shown without pod");
    } else {
        debug!("{runtime} claims to start {what} and is not believed, since {why}");
    }
}

/// What speaks against a runtime.
fn distrust(trust: u32) -> String {
    let reasons = [
        (TRUST_ROOT, "it does not run as root"),
        (TRUST_USER_NS, "it runs in a user namespace"),
        (TRUST_PID_NS, "it runs in a pid namespace"),
        (TRUST_ROOT_DIR, "its root directory is not the host's"),
    ];
    let lacking = reasons.iter().filter(|(bit, _)| trust & bit == 0).map(|(_, reason)| *reason);
    lacking.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_is_called_like_a_runtime_is_one() {
        let strip = |block: &'static [u8]| without_interpreter(block, b"runc");
        assert_eq!(strip(b"/bin/sh\0/opt/runc\0run\0id\0"), b"/opt/runc\0run\0id\0");
        assert_eq!(strip(b"/usr/bin/runc\0run\0id\0"), b"/usr/bin/runc\0run\0id\0");
        assert_eq!(strip(b"something\0else\0"), b"something\0else\0");
        assert_eq!(strip(b""), b"");
    }

    #[test]
    fn distrust_names_every_reason() {
        assert_eq!(distrust(TRUSTED), "");
        let all = distrust(0);
        assert_eq!(all.split(", ").count(), 4, "{all}");
        assert_eq!(distrust(TRUSTED & !TRUST_ROOT), "it does not run as root");
    }
}
