//! What the programs tell of a runtime that was executed, and how far it is believed.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use tokio::runtime::Handle;
use tracer_common::{
    comm_bytes, comm_of,
    container::{ContainerKey, NANOSECONDS_PER_TICK},
    lifecycle::{
        RUNTIME_ARGS_FAULT, RUNTIME_ARGS_TRUNCATED, RUNTIME_REEXECUTED, Runtime, TRUST_PID_NS, TRUST_ROOT,
        TRUST_ROOT_DIR, TRUST_USER_NS, TRUSTED,
    },
};
use tracing::debug;

use crate::{
    discovery::{
        doubt,
        oci::{
            cmdline,
            cmdline::{Command, CommandLine},
        },
        readers::{Guest, Readers},
    },
    model::{Container, Nested, Unknown},
    registry::Registry,
    sys::{cgroup, proc_table, process_handle::RuntimeProcess},
};

/// What speaks for the host's root: who has it needs no container to be believed.
const TRUST_OF_ROOT: u32 = TRUST_ROOT | TRUST_USER_NS;
/// What speaks for the host, whichever user it is.
const TRUST_OF_HOST: u32 = TRUST_PID_NS | TRUST_ROOT_DIR;

/// A runtime's execution, as it claims to be.
#[derive(Debug)]
pub(crate) struct Claim {
    /// The key of what it brings about.
    pub(crate) key: ContainerKey,
    /// The container that it runs in.
    pub(crate) outer: ContainerKey,
    /// The runtime's name.
    pub(crate) runtime: String,
    trust: u32,
    pid: u32,
    start_ticks: u64,
    /// Its parent.
    pub(crate) ppid: u32,
    args: Vec<u8>,
    /// Whether `args` are all there are.
    whole: bool,
    /// Whether its process has executed a runtime before, with the same key.
    pub(crate) again: bool,
    /// A hold on its process, where that was taken before it is known what to do with it.
    held: Option<RuntimeProcess>,
    /// What the parent of an `init` was asked for, where that was found out before.
    parent: Arc<OnceLock<Option<Request>>>,
}

/// What a runtime was asked for, with a hold on its process.
type Request = (CommandLine, RuntimeProcess);

/// How far a runtime on the host is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is the host's root: it names containers and their pods.
    Host,
    /// It is a user of the host, whose runtimes were asked to be believed.
    Rootless,
    /// Neither.
    Stranger,
}

impl Claim {
    /// From the record of an execution.
    pub(crate) fn new(record: &Runtime, args: &[u8]) -> Self {
        Self {
            key: record.record.container,
            outer: record.outer,
            runtime: full_name(&String::from_utf8_lossy(comm_bytes(&record.comm)), args),
            trust: record.trust,
            pid: record.record.pid,
            start_ticks: record.start_time / NANOSECONDS_PER_TICK,
            ppid: record.ppid,
            args: args.to_owned(),
            whole: record.flags & (RUNTIME_ARGS_TRUNCATED | RUNTIME_ARGS_FAULT) == 0,
            again: record.flags & RUNTIME_REEXECUTED != 0,
            held: None,
            parent: Arc::default(),
        }
    }

    /// The same claim, made in a container.
    #[must_use]
    pub(crate) fn within(self, outer: ContainerKey) -> Self {
        Self { outer, ..self }
    }

    /// How far it is believed on the host.
    pub(crate) const fn standing(&self, trust_rootless: bool) -> Standing {
        if self.trust == TRUSTED {
            Standing::Host
        } else if trust_rootless && self.trust & TRUST_OF_HOST == TRUST_OF_HOST {
            Standing::Rootless
        } else {
            Standing::Stranger
        }
    }

    /// Whether it is believed within a container that may name others.
    pub(crate) const fn is_roots(&self) -> bool {
        self.trust & TRUST_OF_ROOT == TRUST_OF_ROOT
    }

    /// Takes hold of its process, which may be gone, with all that it sees of the file system, by the time that its
    /// files are read. That looks into no file system: if it is root's, it may have any. What its parent was asked for
    /// is in that one's memory, where others may have to look.
    pub(crate) fn hold(&mut self, readers: &Arc<Readers>) {
        if !self.is_roots() || self.held.is_some() {
            return;
        }
        self.held = self.process();
        if matches!(self.command_line(None), Ok(line) if line.command == Command::Init) {
            let (parent, readers) = (Arc::clone(&self.parent), Arc::clone(readers));
            let (guest, ppid) = (self.guest(), self.ppid);
            let (runtime, trust) = (self.runtime.clone(), self.trust);
            readers.handle().clone().spawn(async move {
                let look = move || parent.get_or_init(|| parent_request(ppid, &runtime, trust)).is_some();
                readers.guest(guest, look).await;
            });
        }
    }

    /// Whose reading it is to look at what its parent was asked for: the container's that it runs in, however many runtimes
    /// that executes.
    const fn guest(&self) -> Guest {
        Guest::Container(self.outer)
    }

    fn process(&self) -> Option<RuntimeProcess> {
        let process = RuntimeProcess::open(self.pid, self.start_ticks);
        process.map_err(|error| debug!("{}: {error}", self.runtime)).ok()
    }

    /// What it was asked for, and a hold on its process if that is there still.
    ///
    /// An `init` whose runtime is not followed, since that was executed before the programs were there, does what its
    /// parent was asked for.
    pub(crate) fn request(&mut self) -> (Result<CommandLine, String>, Option<RuntimeProcess>) {
        let process = self.held.take().or_else(|| self.process());
        let line = self.command_line(process.as_ref());
        if matches!(&line, Ok(line) if line.command == Command::Init)
            && let Some((line, parent)) = self.parent()
        {
            return (Ok(line), Some(parent));
        }
        (line, process)
    }

    /// What its parent was asked for: what was found out before, else what can be found out now.
    fn parent(&mut self) -> Option<Request> {
        let parent = std::mem::take(&mut self.parent);
        let found = Arc::try_unwrap(parent).ok().and_then(OnceLock::into_inner).flatten();
        found.or_else(|| parent_request(self.ppid, &self.runtime, self.trust))
    }

    /// The command line, from the runtime itself where it does not fit into a record.
    fn command_line(&self, process: Option<&RuntimeProcess>) -> Result<CommandLine, String> {
        match process.filter(|_| !self.whole).map(RuntimeProcess::cmdline) {
            Some(Ok(cmdline)) => parse(&cmdline, false, &self.runtime),
            Some(Err(error)) => Err(error.to_string()),
            None => parse(&self.args, !self.whole, &self.runtime),
        }
    }

    /// The container that it says it is about. Nothing but the record is looked at. What is longer than an id can be is
    /// none: each event would repeat it.
    pub(crate) fn nested(&self) -> Nested {
        /// runc's limit for ids.
        const ID_MAX: usize = 1024;
        let id = match self.command_line(None).map(|line| line.command) {
            Ok(Command::Create(creation) | Command::Run(creation) | Command::Restore(creation)) => {
                creation.id
            }
            Ok(Command::Exec(exec)) => exec.id,
            Ok(Command::Start(id)) => id,
            Ok(Command::Init | Command::Other) | Err(_) => {
                return Nested { id: String::new(), runtime: self.runtime.clone() };
            }
        };
        let id = if id.len() > ID_MAX { String::new() } else { id.to_string_lossy().into_owned() };
        Nested { id, runtime: self.runtime.clone() }
    }

    /// Its container, which it is not believed about: not even the id, which might be another's. None for what brings no
    /// process into any container.
    pub(crate) fn disbelieved(&self) -> Option<Stray> {
        let what = what(&self.command_line(None))?;
        let (runtime, why) = (&self.runtime, distrust(self.trust));
        Some(Stray {
            runtime: runtime.clone(),
            why: Unknown::Untrusted,
            roots_cgroup: self.is_roots(),
            pod_known: true,
            warning: format!(
                "{runtime} claims to start {what} and is not believed, since {why}: shown without pod"
            ),
        })
    }

    /// Its container, whose runtime is believed but not understood.
    pub(crate) fn not_understood(&self, problem: &str) -> Stray {
        Stray {
            runtime: self.runtime.clone(),
            why: Unknown::NotUnderstood,
            roots_cgroup: true,
            pod_known: false,
            warning: format!("{}: {problem}: its container is shown without pod", self.runtime),
        }
    }
}

/// A container that only its cgroup can tell from others, once there is one.
#[derive(Debug)]
pub(crate) struct Stray {
    runtime: String,
    why: Unknown,
    /// Whether root has made its cgroup: others may have some to name as another's container.
    roots_cgroup: bool,
    /// Pods are the host's runtimes' alone.
    pod_known: bool,
    /// What is to be said of it.
    warning: String,
}

impl Stray {
    /// Says what is wrong with it, to those who may have selected it.
    pub(crate) fn warn(&self, key: ContainerKey, registry: &Arc<Registry>, handle: &Handle) {
        let container = Container { pod_known: self.pod_known, ..Container::unknown(self.why) };
        doubt::warn(key, &container, self.warning.clone(), registry, handle);
    }

    /// The container, with its first process and the name of that one's cgroup in the unified hierarchy; without one
    /// there, the others may tell.
    pub(crate) fn container(self, cgroup: &str, pid: u32) -> Container {
        let id = self.roots_cgroup.then(|| cgroup::id_of(cgroup).or_else(|| cgroup::id_of_process(pid)));
        Container {
            id: id.flatten().unwrap_or_default(),
            runtime: self.runtime,
            pod_known: self.pod_known,
            ..Container::unknown(self.why)
        }
    }
}

/// What the parent of a runtime was asked for, if that is a runtime at work which is believed as much.
fn parent_request(pid: u32, runtime: &str, trust: u32) -> Option<Request> {
    let parent = RuntimeProcess::open(pid, proc_table::start_ticks(pid)?).ok()?;
    // First, since its command line is in its memory, which an untrusted process may make hang.
    if parent.trust().ok()? & trust != trust {
        return None;
    }
    let line = parse(&parent.cmdline().ok()?, false, runtime).ok()?;
    (!matches!(line.command, Command::Init | Command::Other)).then_some((line, parent))
}

/// What the command line of a process with this comm says.
pub(crate) fn parse(block: &[u8], truncated: bool, comm: &str) -> Result<CommandLine, String> {
    cmdline::parse(without_interpreter(block, comm.as_bytes()), truncated).map_err(|error| error.to_string())
}

/// A runtime's name, of which a comm has 15 bytes: in full, where its command line has it.
pub(crate) fn full_name(comm: &str, block: &[u8]) -> String {
    let word =
        without_interpreter(block, comm.as_bytes()).split(|byte| *byte == 0).next().unwrap_or_default();
    let name = word.rsplit(|byte| *byte == b'/').next().unwrap_or(word);
    match str::from_utf8(name) {
        Ok(name) if is_cut_to(name, comm) => name.to_owned(),
        _ => comm.to_owned(),
    }
}

/// Whether a comm is what the kernel keeps of a file's name.
pub(crate) fn is_cut_to(name: &str, comm: &str) -> bool {
    comm_bytes(&comm_of(name)) == comm.as_bytes()
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

/// What a command line says comes about; None for nothing.
#[expect(clippy::unnecessary_debug_formatting, reason = "it escapes what a hostile command line may hold")]
fn what(line: &Result<CommandLine, String>) -> Option<String> {
    match line.as_ref().map(|line| &line.command) {
        Ok(Command::Create(creation) | Command::Run(creation) | Command::Restore(creation)) => {
            let bundle = creation.bundle.as_deref().unwrap_or(Path::new(""));
            Some(format!("container {:?} with bundle {bundle:?}", creation.id))
        }
        Ok(Command::Exec(exec)) => Some(format!("a process for container {:?}", exec.id)),
        Ok(Command::Start(_) | Command::Other) => None,
        Ok(Command::Init) | Err(_) => Some("a container".to_owned()),
    }
}

/// What speaks against a runtime.
fn distrust(trust: u32) -> String {
    let reasons = [
        (TRUST_ROOT, "it was not started by root or does not run as root"),
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

    fn claim(args: &str, key: ContainerKey, outer: ContainerKey) -> Claim {
        Claim {
            key,
            outer,
            runtime: "runc".to_owned(),
            trust: 0,
            pid: 0,
            start_ticks: 0,
            ppid: 0,
            args: args.as_bytes().to_owned(),
            whole: true,
            again: false,
            held: None,
            parent: Arc::default(),
        }
    }

    #[test]
    fn all_claims_of_a_container_are_one_guests() {
        let outer = ContainerKey::new(1, 1);
        let guest = |slot| claim("runc\0init\0", ContainerKey::new(slot, 1), outer).guest();
        assert_eq!(guest(2), Guest::Container(outer));
        assert_eq!(guest(2), guest(3));
    }

    #[test]
    fn a_name_that_a_comm_has_no_room_for_is_on_the_command_line() {
        let name = |comm: &str, block: &[u8]| full_name(comm, block);
        assert_eq!(
            name("nvidia-containe", b"/usr/bin/nvidia-container-runtime\0run\0"),
            "nvidia-container-runtime"
        );
        assert_eq!(
            name("nvidia-containe", b"/bin/sh\0/opt/nvidia-container-runtime\0run\0"),
            "nvidia-container-runtime"
        );
        assert_eq!(name("nvidia-containe", b"nvidia-containe\0"), "nvidia-containe");
        assert_eq!(name("nvidia-containe", b"other\0"), "nvidia-containe");
        assert_eq!(name("runc", b"/usr/sbin/runc\0"), "runc");
        assert_eq!(name("runc", b"/x/runc-of-mine\0"), "runc");
        assert_eq!(name("runc", b""), "runc");
    }

    #[test]
    fn an_id_that_no_runtime_would_take_is_none() {
        let claimed = |id: String| {
            let key = ContainerKey::HOST;
            claim(&format!("runc\0run\0{id}\0"), key, key).nested().id
        };
        assert_eq!(claimed("x".repeat(64)), "x".repeat(64));
        assert_eq!(claimed("x".repeat(4096)), "");
    }

    #[test]
    fn distrust_names_every_reason() {
        assert_eq!(distrust(TRUSTED), "");
        let all = distrust(0);
        assert_eq!(all.split(", ").count(), 4, "{all}");
        assert_eq!(distrust(TRUSTED & !TRUST_ROOT), "it was not started by root or does not run as root");
    }
}
