//! Reading the ring buffer of lifecycle records, ahead of the events that they explain.

use std::{collections::HashMap, os::fd::OwnedFd, sync::Arc};

use anyhow::Context as _;
use tracer_common::container::ContainerKey;
use tracing::{debug, warn};

use crate::{
    bpf::{Corrupt, MappedRing},
    discovery::{
        claim::{Claim, Standing, Stray},
        invocation::{Invocation, Stage, learn_at, learn_inner, learn_rootless},
        readers::Readers,
        record::Told,
        unannounced,
    },
    registry::Registry,
    sys::{files, proc_table},
};

/// The reader of the ring. Whoever drains it does so for all: the registry is up to date afterwards.
pub(crate) struct Lifecycle {
    ring: MappedRing,
    learner: Learner,
    /// Why the ring could not be read any further.
    failure: Option<Corrupt>,
}

/// All of it but the ring, which lends the records out.
struct Learner {
    registry: Arc<Registry>,
    /// Where bundles are read: on threads of their own, so that none is waited for here.
    readers: Arc<Readers>,
    /// Whether users' runtimes are believed.
    trust_rootless: bool,
    /// Containers that wait for their cgroup to tell which they are.
    strays: HashMap<ContainerKey, Stray>,
    /// What runtimes at work bring about: looked at again when the container begins, since a wrapper may have changed the
    /// bundle meanwhile.
    at_work: HashMap<ContainerKey, Arc<Invocation>>,
    /// Runtimes that may turn out to work in a container which ran already, while those are being found.
    unsettled: Option<HashMap<ContainerKey, Unsettled>>,
}

/// A runtime of which it is not known yet where it works.
struct Unsettled {
    claim: Claim,
    /// Its parent, that one's parent and so on: some may be gone when it is settled.
    ancestors: Vec<u32>,
    /// The container's cgroup and first process, once there are any.
    bound: Option<(String, u32)>,
}

impl Lifecycle {
    /// A reader that tells `registry` what it learns.
    pub(crate) fn new(
        ring: MappedRing,
        registry: Arc<Registry>,
        readers: Arc<Readers>,
        trust_rootless: bool,
    ) -> Self {
        let (strays, at_work, unsettled) = (HashMap::new(), HashMap::new(), Some(HashMap::new()));
        let learner = Learner { registry, readers, trust_rootless, strays, at_work, unsettled };
        Self { ring, learner, failure: None }
    }

    /// The containers that ran already are found: who runs in one of them is known from now on.
    pub(crate) fn settle(&mut self) {
        self.drain();
        for unsettled in self.learner.unsettled.take().unwrap_or_default().into_values() {
            self.learner.settle(unsettled);
        }
    }

    /// A descriptor that is readable when there is something to drain.
    pub(crate) fn readiness(&self) -> anyhow::Result<OwnedFd> {
        self.ring.readiness().context("duplicating the lifecycle ring's descriptor")
    }

    /// A container whose first process was not told of.
    pub(crate) fn begun(&mut self, key: ContainerKey, pid: u32, container_pid: u32, at: u64) {
        self.learner.begin(key, "", pid, container_pid, at);
    }

    /// A container whose end was not told of.
    pub(crate) fn ended(&mut self, key: ContainerKey, at: u64) {
        self.learner.end(key, at);
    }

    /// Handles every record that is there. Should the ring not be readable any further, [`Self::check`] says so.
    pub(crate) fn drain(&mut self) {
        let Self { ring, learner, failure } = self;
        if failure.is_some() {
            return;
        }
        let drained = ring.drain(|bytes| {
            if learner.handle(bytes).is_none() {
                warn!("a lifecycle record of {} bytes makes no sense", bytes.len());
            }
            true
        });
        *failure = drained.err();
    }

    /// Fails if the ring could not be read any further.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.failure.map_or(Ok(()), |failure| Err(failure).context("reading the BPF map LIFECYCLE"))
    }
}

impl Learner {
    fn handle(&mut self, bytes: &[u8]) -> Option<()> {
        match Told::decode(bytes)? {
            Told::Runtime(runtime, args) => self.follow(Claim::new(&runtime, args)),
            Told::Bound(bound, cgroup) => {
                let (record, cgroup) = (bound.record, String::from_utf8_lossy(cgroup));
                self.begin(record.container, &cgroup, record.pid, bound.container_pid, record.timestamp);
            }
            Told::Ended(record) => self.end(record.container, record.timestamp),
            Told::Unannounced(bound, cgroup) => {
                let (key, cgroup) = (bound.record.container, String::from_utf8_lossy(cgroup));
                debug!("process {} is in cgroup {cgroup:?}: container {}", bound.record.pid, key.slot());
                self.registry.announce(key, ContainerKey::HOST, None);
                unannounced::find(&bound, &self.registry, &self.readers);
            }
        }
        Some(())
    }

    /// A container has a process of its own, in a cgroup of this name in the unified hierarchy.
    fn begin(&mut self, key: ContainerKey, cgroup: &str, pid: u32, container_pid: u32, at: u64) {
        if let Some(stray) = self.strays.remove(&key) {
            self.registry.resolve(key, stray.container(cgroup, pid));
        } else if let Some(unsettled) = self.unsettled.as_mut().and_then(|all| all.get_mut(&key)) {
            unsettled.bound = Some((cgroup.to_owned(), pid));
        }
        if let Some(invocation) = self.at_work.remove(&key) {
            learn_at(&invocation, Stage::Begun, &self.registry, &self.readers);
        }
        debug!("container {}: entrypoint is process {pid}", key.slot());
        self.registry.begin(key, pid, container_pid, at);
    }

    /// The last process of a container is gone.
    fn end(&mut self, key: ContainerKey, at: u64) {
        self.strays.remove(&key);
        self.at_work.remove(&key);
        self.registry.end(key, at);
    }

    /// A runtime was executed.
    fn follow(&mut self, mut claim: Claim) {
        if claim.again {
            debug!("{} works on for container {}", claim.runtime, claim.key.slot());
        }
        if claim.outer != ContainerKey::HOST && !self.registry.is_host(claim.outer) {
            learn_inner(claim, &self.registry, &self.readers);
            return;
        }
        match claim.standing(self.trust_rootless) {
            Standing::Host => self.follow_trusted(claim),
            Standing::Rootless => learn_rootless(claim, &self.registry, &self.readers),
            Standing::Stranger => match &mut self.unsettled {
                Some(unsettled) => {
                    self.registry.announce(claim.key, ContainerKey::HOST, None);
                    claim.hold(&self.readers);
                    let ancestors = proc_table::ancestors(claim.ppid);
                    unsettled.insert(claim.key, Unsettled { claim, ancestors, bound: None });
                }
                None => self.disbelieve(&claim, None),
            },
        }
    }

    /// A runtime that is not believed for what it is on the host: it works in a container, or it is a stranger.
    fn settle(&mut self, Unsettled { claim, ancestors, bound }: Unsettled) {
        match ancestors.into_iter().find_map(|pid| self.registry.container_of(pid)) {
            Some(outer) => learn_inner(claim.within(outer), &self.registry, &self.readers),
            None => self.disbelieve(&claim, bound),
        }
    }

    /// Nothing of a stranger is looked at: its view of the file system may be made to hang.
    fn disbelieve(&mut self, claim: &Claim, bound: Option<(String, u32)>) {
        let Some(stray) = claim.disbelieved() else { return };
        stray.warn(claim.key, &self.registry, self.readers.handle());
        match bound {
            Some((cgroup, pid)) => self.registry.resolve(claim.key, stray.container(&cgroup, pid)),
            None => self.await_cgroup(claim.key, stray),
        }
    }

    /// Takes hold of a trusted runtime's process, while it is still there.
    fn follow_trusted(&mut self, mut claim: Claim) {
        match claim.request() {
            (Ok(line), process) => {
                let runtime = claim.runtime.clone();
                if let Some(invocation) =
                    Invocation::new(claim.key, runtime, process, files::ROOT, None, line)
                {
                    let invocation = Arc::new(invocation);
                    learn_at(&invocation, Stage::AtWork, &self.registry, &self.readers);
                    self.at_work.insert(invocation.key(), invocation);
                }
            }
            (Err(problem), _) => {
                let stray = claim.not_understood(&problem);
                stray.warn(claim.key, &self.registry, self.readers.handle());
                self.await_cgroup(claim.key, stray);
            }
        }
    }

    fn await_cgroup(&mut self, key: ContainerKey, stray: Stray) {
        self.registry.announce(key, ContainerKey::HOST, None);
        self.strays.insert(key, stray);
    }
}
