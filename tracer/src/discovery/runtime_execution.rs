//! A runtime's execution: what the programs report of it, and how far it is trusted.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use tracer_common::{
    comm_bytes,
    container::{ContainerKey, NANOSECONDS_PER_TICK},
    lifecycle::{
        RUNTIME_ARGS_FAULT, RUNTIME_ARGS_TRUNCATED, RUNTIME_REEXECUTED, Runtime, TRUST_PID_NS, TRUST_ROOT,
        TRUST_ROOT_DIR, TRUST_USER_NS, TRUSTED,
    },
};
use tracing::debug;

use crate::{
    discovery::{
        invocation::Invocation,
        node_container::NodeContainer,
        oci::cmdline::{Command, CommandLine, CommandLineError},
        readers::{Readers, UntrustedOwner},
        runtime_name::{full_name, parse},
        unresolved::UnresolvedContainer,
    },
    model::{Nested, Unknown},
    sys::{
        files, proc_table,
        process_handle::{ProcessError, RuntimeProcess},
    },
};

/// The flags of the host's root, in whatever container it runs.
const TRUST_OF_ROOT: u32 = TRUST_ROOT | TRUST_USER_NS;
/// The flags of a process on the host, of whichever user.
const TRUST_OF_HOST: u32 = TRUST_PID_NS | TRUST_ROOT_DIR;

/// A runtime's execution. Its command line is a claim: it counts as far as the process is trusted.
#[derive(Debug)]
pub(crate) struct RuntimeExecution {
    /// The key of the container that it starts or joins.
    pub(crate) key: ContainerKey,
    /// The container that it runs in.
    pub(crate) outer: ContainerKey,
    /// The runtime's name.
    pub(crate) runtime: String,
    flags: u32,
    pid: u32,
    start_ticks: u64,
    /// Its parent.
    pub(crate) ppid: u32,
    args: Vec<u8>,
    /// Whether `args` are all there are.
    whole: bool,
    /// Whether its process has executed a runtime before, with the same key.
    pub(crate) again: bool,
    /// Its process, if it was opened early: it may exit before its request is needed.
    held: Option<RuntimeProcess>,
    /// The request of an `init`'s parent, if it was read before.
    parent: Arc<OnceLock<Option<Request>>>,
}

/// A runtime's command line, with its process.
type Request = (CommandLine, RuntimeProcess);

/// Why the request of a runtime is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// Its command line is not a runtime's.
    #[error(transparent)]
    CommandLine(#[from] CommandLineError),
    /// Its command line does not fit into a record and could not be read.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// How far a runtime on the host is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrustLevel {
    /// It is the host's root: it names containers and their pods.
    Host,
    /// It belongs to a user of the host, and the runtimes of users are trusted.
    Rootless,
    /// Neither.
    Untrusted,
}

impl RuntimeExecution {
    /// From the record of an execution.
    pub(crate) fn new(record: &Runtime, args: &[u8]) -> Self {
        Self {
            key: record.record.container,
            outer: record.outer,
            runtime: full_name(&String::from_utf8_lossy(comm_bytes(&record.comm)), args),
            flags: record.trust,
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

    /// The same execution, in a container.
    #[must_use]
    pub(crate) fn within(self, outer: ContainerKey) -> Self {
        Self { outer, ..self }
    }

    /// How far it is trusted on the host.
    pub(crate) const fn trust(&self, trust_rootless: bool) -> TrustLevel {
        if self.flags == TRUSTED {
            TrustLevel::Host
        } else if trust_rootless && self.flags & TRUST_OF_HOST == TRUST_OF_HOST {
            TrustLevel::Rootless
        } else {
            TrustLevel::Untrusted
        }
    }

    /// Whether it is trusted within a container that may name others.
    pub(crate) const fn is_roots(&self) -> bool {
        self.flags & TRUST_OF_ROOT == TRUST_OF_ROOT
    }

    /// Opens its process, which may have exited by the time that its files are read. This reads no file system of the
    /// process's: if it is root's, that may be any. The request of its parent is in that one's memory, so it is read
    /// where blocking does no harm.
    pub(crate) fn hold(&mut self, readers: &Arc<Readers>) {
        if !self.is_roots() || self.held.is_some() {
            return;
        }
        self.held = self.process();
        if matches!(self.command_line(None), Ok(line) if line.command == Command::Init) {
            let (parent, readers) = (Arc::clone(&self.parent), Arc::clone(readers));
            let (owner, ppid) = (self.owner(), self.ppid);
            let (runtime, flags) = (self.runtime.clone(), self.flags);
            readers.handle().clone().spawn(async move {
                let look = move || parent.get_or_init(|| parent_request(ppid, &runtime, flags)).is_some();
                readers.untrusted(owner, look).await;
            });
        }
    }

    /// The owner that reading its parent's request is accounted to: the container that it runs in, however many runtimes
    /// that executes.
    const fn owner(&self) -> UntrustedOwner {
        UntrustedOwner::Container(self.outer)
    }

    fn process(&self) -> Option<RuntimeProcess> {
        let process = RuntimeProcess::open(self.pid, self.start_ticks);
        process.map_err(|error| debug!("{}: {error}", self.runtime)).ok()
    }

    /// Its request, and its process if that still runs.
    ///
    /// An `init` whose runtime is not followed, since that was executed before the programs were attached, has its
    /// parent's request.
    pub(crate) fn request(&mut self) -> (Result<CommandLine, RequestError>, Option<RuntimeProcess>) {
        let process = self.held.take().or_else(|| self.process());
        let line = self.command_line(process.as_ref());
        if matches!(&line, Ok(line) if line.command == Command::Init)
            && let Some((line, parent)) = self.parent()
        {
            return (Ok(line), Some(parent));
        }
        (line, process)
    }

    /// The invocation, in the container `node` or of a user on the host. None if it brings no process into any container,
    /// and the container without its pod if the request is not understood.
    pub(crate) fn invocation(
        &mut self,
        node: Option<NodeContainer>,
    ) -> Result<Option<Invocation>, UnresolvedContainer> {
        let (line, process) = self.request();
        let owner = match (&node, &process) {
            (None, Some(process)) => process.effective_uid().unwrap_or(files::ROOT),
            _ => files::ROOT,
        };
        match line {
            Ok(line) => Ok(Invocation::new(self.key, self.runtime.clone(), process, owner, node, line)),
            Err(error) => Err(self.not_understood(&error, node.map(|node| node.shown))),
        }
    }

    /// The parent's request: what was read before, or what can be read now.
    fn parent(&mut self) -> Option<Request> {
        let parent = std::mem::take(&mut self.parent);
        let found = Arc::try_unwrap(parent).ok().and_then(OnceLock::into_inner).flatten();
        found.or_else(|| parent_request(self.ppid, &self.runtime, self.flags))
    }

    /// The command line, from the process itself if it does not fit into a record.
    pub(crate) fn command_line(&self, process: Option<&RuntimeProcess>) -> Result<CommandLine, RequestError> {
        match process.filter(|_| !self.whole) {
            Some(process) => Ok(parse(&process.cmdline()?, false, &self.runtime)?),
            None => Ok(parse(&self.args, !self.whole, &self.runtime)?),
        }
    }

    /// The container that its command line names, by the record alone. An id that is too long is left out, since each
    /// event would repeat it.
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

    /// Its container, if it is not trusted: not even the id counts, which might be another's. None if it brings no process
    /// into any container.
    pub(crate) fn untrusted(&self) -> Option<UnresolvedContainer> {
        let what = what(&self.command_line(None))?;
        let (runtime, reasons) = (&self.runtime, distrust(self.flags));
        Some(UnresolvedContainer {
            runtime: runtime.clone(),
            why: Unknown::Untrusted,
            has_roots_cgroup: self.is_roots(),
            pod_known: true,
            outer: None,
            warning: format!(
                "{runtime} claims to start {what} and is not trusted, since {reasons}: shown without pod"
            ),
        })
    }

    /// Its container, if it is trusted and its request is not understood. `outer` is the container that it is in.
    pub(crate) fn not_understood(&self, error: &RequestError, outer: Option<Nested>) -> UnresolvedContainer {
        UnresolvedContainer {
            runtime: self.runtime.clone(),
            why: Unknown::NotUnderstood,
            has_roots_cgroup: true,
            pod_known: false,
            outer,
            warning: format!("{}: {error}: its container is shown without pod", self.runtime),
        }
    }
}

/// The request of a runtime's parent, if that is a running runtime which is trusted as much.
fn parent_request(pid: u32, runtime: &str, flags: u32) -> Option<Request> {
    let parent = RuntimeProcess::open(pid, proc_table::start_ticks(pid)?).ok()?;
    // Checked first: its command line is in its memory, and an untrusted process can make reading that hang.
    if parent.trust().ok()? & flags != flags {
        return None;
    }
    let line = parse(&parent.cmdline().ok()?, false, runtime).ok()?;
    (!matches!(line.command, Command::Init | Command::Other)).then_some((line, parent))
}

/// What a command line starts; None for nothing.
#[expect(clippy::unnecessary_debug_formatting, reason = "it escapes what a hostile command line may hold")]
fn what(line: &Result<CommandLine, RequestError>) -> Option<String> {
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

/// Why a runtime with these flags is not trusted.
fn distrust(flags: u32) -> String {
    let reasons = [
        (TRUST_ROOT, "it was not started by root or does not run as root"),
        (TRUST_USER_NS, "it runs in a user namespace"),
        (TRUST_PID_NS, "it runs in a pid namespace"),
        (TRUST_ROOT_DIR, "its root directory is not the host's"),
    ];
    let lacking = reasons.iter().filter(|(bit, _)| flags & bit == 0).map(|(_, reason)| *reason);
    lacking.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn execution(args: &str, key: ContainerKey, outer: ContainerKey) -> RuntimeExecution {
        RuntimeExecution {
            key,
            outer,
            runtime: "runc".to_owned(),
            flags: 0,
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
    fn all_executions_in_container_have_one_owner() {
        let outer = ContainerKey::new(1, 1);
        let owner = |slot| execution("runc\0init\0", ContainerKey::new(slot, 1), outer).owner();
        assert_eq!(owner(2), UntrustedOwner::Container(outer));
        assert_eq!(owner(2), owner(3));
    }

    #[test]
    fn id_longer_than_runtimes_accept_is_left_out() {
        let shown = |id: String| {
            let key = ContainerKey::HOST;
            execution(&format!("runc\0run\0{id}\0"), key, key).nested().id
        };
        assert_eq!(shown("x".repeat(64)), "x".repeat(64));
        assert_eq!(shown("x".repeat(4096)), "");
    }

    #[test]
    fn untrusted_runtime_is_reported_with_every_reason() {
        assert_eq!(distrust(TRUSTED), "");
        let all = distrust(0);
        assert_eq!(all.split(", ").count(), 4, "{all}");
        assert_eq!(distrust(TRUSTED & !TRUST_ROOT), "it was not started by root or does not run as root");
    }
}
