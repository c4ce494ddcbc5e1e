//! The states of a runtime's execution until its container is known.
//!
//! ```text
//! executed in a container ────────────────────────────▶ resolved by what that container may do
//! executed on the host
//!   ├─ trusted ────────▶ RuntimeRunning ── begun ─────▶ resolved by its bundle, which is read twice
//!   ├─ a user's, trusted by option ───────────────────▶ resolved by its bundle, read as that user
//!   └─ untrusted
//!        ├─ during the scan ─▶ AwaitingScan ── scan completed ─▶ in a container after all: as above
//!        │                                          │
//!        │                              otherwise   ▼
//!        └─ after it ──────────────────────▶ AwaitingCgroup ── begun ─▶ resolved by its cgroup's name
//! ```
//!
//! [`Executions`] has the states, and runs on the thread that reads lifecycle records: it never blocks. The [`Resolver`]
//! reads files and waits for other containers, on separate threads.

use std::{collections::HashMap, sync::Arc};

use tracer_common::container::ContainerKey;
use tracing::debug;

use crate::{
    discovery::{
        invocation::Invocation,
        resolver::{BundleState, Resolver},
        runtime_execution::{RuntimeExecution, TrustLevel},
        unresolved::UnresolvedContainer,
    },
    sys::{files, proc_table},
};

/// The executions whose containers are not known permanently.
pub(crate) struct Executions {
    resolver: Resolver,
    /// Whether runtimes of users are trusted.
    trust_rootless: bool,
    scan: Scan,
    pending: HashMap<ContainerKey, Pending>,
}

/// The search for containers that were running already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scan {
    Running,
    Completed,
}

/// What an execution waits for. Executed again under the same key, the latest execution counts.
enum Pending {
    /// The runtime is running and its bundle is being read. It is read again when the container begins, since a wrapper
    /// may change it until then.
    RuntimeRunning(Arc<Invocation>),
    /// It is not trusted for what it is on the host, but it may turn out to run in a container that is yet to be found.
    AwaitingScan {
        execution: RuntimeExecution,
        /// Its parent, that one's parent and so on: some may have exited when the scan is completed.
        ancestors: Vec<u32>,
        /// The container's cgroup and first process, once there are any.
        begun: Option<(String, u32)>,
    },
    /// Only the container's cgroup can name it, once there is one.
    AwaitingCgroup(UnresolvedContainer),
}

/// Where a runtime was executed, and how far it is trusted there.
enum Site {
    Container,
    Host(TrustLevel),
}

impl Executions {
    pub(crate) fn new(resolver: Resolver, trust_rootless: bool) -> Self {
        Self { resolver, trust_rootless, scan: Scan::Running, pending: HashMap::new() }
    }

    /// A runtime was executed.
    pub(crate) fn executed(&mut self, execution: RuntimeExecution) {
        if execution.again {
            debug!("{} continues for container {}", execution.runtime, execution.key.slot());
        }
        match (self.site(&execution), self.scan) {
            (Site::Container, _) => self.resolver.resolve_nested(execution),
            (Site::Host(TrustLevel::Host), _) => self.follow(execution),
            (Site::Host(TrustLevel::Rootless), _) => self.resolver.resolve_rootless(execution),
            (Site::Host(TrustLevel::Untrusted), Scan::Running) => self.await_scan(execution),
            (Site::Host(TrustLevel::Untrusted), Scan::Completed) => self.reject(&execution, None),
        }
    }

    /// A container has a process of its own, in a cgroup of this name in the unified hierarchy.
    pub(crate) fn begun(&mut self, key: ContainerKey, cgroup: &str, pid: u32, container_pid: u32, at: u64) {
        match self.pending.remove(&key) {
            Some(Pending::RuntimeRunning(invocation)) => {
                self.resolver.resolve_at(&invocation, BundleState::Final);
            }
            Some(Pending::AwaitingCgroup(unresolved)) => {
                self.resolver.registry.resolve(key, unresolved.in_cgroup(cgroup, pid));
            }
            Some(Pending::AwaitingScan { execution, ancestors, .. }) => {
                let begun = Some((cgroup.to_owned(), pid));
                self.pending.insert(key, Pending::AwaitingScan { execution, ancestors, begun });
            }
            None => {}
        }
        debug!("container {}: entrypoint is process {pid}", key.slot());
        self.resolver.registry.begin(key, pid, container_pid, at);
    }

    /// The last process of a container has exited. Its events may still be on their way, so an execution that awaits the
    /// scan is kept.
    pub(crate) fn ended(&mut self, key: ContainerKey, at: u64) {
        if !matches!(self.pending.get(&key), Some(Pending::AwaitingScan { .. })) {
            self.pending.remove(&key);
        }
        self.resolver.registry.end(key, at);
    }

    /// The containers that were running already have been found: what runs in one of them is known from now on.
    pub(crate) fn scan_completed(&mut self) {
        self.scan = Scan::Completed;
        let is_waiting = |pending: &mut Pending| matches!(pending, Pending::AwaitingScan { .. });
        let waiting: Vec<(ContainerKey, Pending)> =
            self.pending.extract_if(|_, pending| is_waiting(pending)).collect();
        for (_, pending) in waiting {
            let Pending::AwaitingScan { execution, ancestors, begun } = pending else { continue };
            let slots = &self.resolver.registry.slots;
            match ancestors.into_iter().find_map(|pid| slots.container_of(pid)) {
                Some(outer) => self.resolver.resolve_nested(execution.within(outer)),
                None => self.reject(&execution, begun),
            }
        }
    }

    fn site(&self, execution: &RuntimeExecution) -> Site {
        let outer = execution.outer;
        if outer != ContainerKey::HOST && !self.resolver.registry.is_host(outer) {
            Site::Container
        } else {
            Site::Host(execution.trust(self.trust_rootless))
        }
    }

    /// Opens a trusted runtime's process while it is still there, and has its bundle read.
    fn follow(&mut self, mut execution: RuntimeExecution) {
        let key = execution.key;
        match execution.request() {
            (Ok(line), process) => {
                let runtime = execution.runtime.clone();
                // A command that brings no process into a container is not followed.
                if let Some(invocation) = Invocation::new(key, runtime, process, files::ROOT, None, line) {
                    let invocation = Arc::new(invocation);
                    self.resolver.resolve_at(&invocation, BundleState::Provisional);
                    self.pending.insert(key, Pending::RuntimeRunning(invocation));
                }
            }
            (Err(error), _) => {
                let unresolved = execution.not_understood(&error, None);
                unresolved.warn(key, &self.resolver);
                self.await_cgroup(key, unresolved);
            }
        }
    }

    fn await_scan(&mut self, mut execution: RuntimeExecution) {
        let key = execution.key;
        self.resolver.registry.announce(key, ContainerKey::HOST, None);
        execution.hold(&self.resolver.readers);
        let ancestors = proc_table::ancestors(execution.ppid);
        self.pending.insert(key, Pending::AwaitingScan { execution, ancestors, begun: None });
    }

    /// An untrusted runtime is not looked into: its view of the file system may be made to hang. Its container is named by
    /// its cgroup, at once if it has begun.
    fn reject(&mut self, execution: &RuntimeExecution, begun: Option<(String, u32)>) {
        let key = execution.key;
        let Some(unresolved) = execution.untrusted() else { return };
        unresolved.warn(key, &self.resolver);
        match begun {
            Some((cgroup, pid)) => self.resolver.registry.resolve(key, unresolved.in_cgroup(&cgroup, pid)),
            None => self.await_cgroup(key, unresolved),
        }
    }

    fn await_cgroup(&mut self, key: ContainerKey, unresolved: UnresolvedContainer) {
        self.resolver.registry.announce(key, ContainerKey::HOST, None);
        self.pending.insert(key, Pending::AwaitingCgroup(unresolved));
    }
}
