//! Reading the ring buffer of lifecycle records, ahead of the events that they explain.

use std::{
    collections::HashMap,
    mem::size_of,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use tracer_common::{
    container::ContainerKey,
    lifecycle::{Bound, Kind, Record, Runtime},
};
use tracing::warn;

use super::{
    claim::{Claim, Standing, Stray},
    files,
    invocation::{Invocation, learn, learn_inner, learn_rootless},
    readers::Readers,
};
use crate::{containers::Registry, wire};

/// The reader of the ring. Whoever drains it does so for all: the registry is up to date afterwards.
pub struct Lifecycle {
    ring: RingBuf<MapData>,
    learner: Learner,
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
}

impl Lifecycle {
    /// A reader that tells `registry` what it learns.
    pub fn new(
        ring: RingBuf<MapData>,
        registry: Arc<Registry>,
        readers: Arc<Readers>,
        trust_rootless: bool,
    ) -> Self {
        Self { ring, learner: Learner { registry, readers, trust_rootless, strays: HashMap::new() } }
    }

    /// A descriptor that is readable when there is something to drain.
    pub fn readiness(&self) -> anyhow::Result<OwnedFd> {
        self.ring.as_fd().try_clone_to_owned().context("duplicating the lifecycle ring's descriptor")
    }

    /// Handles every record that is there.
    pub fn drain(&mut self) {
        let Self { ring, learner } = self;
        while let Some(bytes) = ring.next() {
            if learner.handle(&bytes).is_none() {
                warn!("a lifecycle record of {} bytes makes no sense", bytes.len());
            }
        }
    }
}

impl Learner {
    fn handle(&mut self, bytes: &[u8]) -> Option<()> {
        let record: Record = wire::read(bytes)?;
        let key = record.container;
        match Kind::try_from(record.kind).ok()? {
            Kind::Runtime => {
                let runtime: Runtime = wire::read(bytes)?;
                let args = bytes.get(size_of::<Runtime>()..)?.get(..usize::from(runtime.args_len))?;
                self.follow(Claim::new(&runtime, args));
            }
            Kind::Bound => {
                let bound: Bound = wire::read(bytes)?;
                let cgroup = bytes.get(size_of::<Bound>()..)?.get(..bound.cgroup_len as usize)?;
                if let Some(stray) = self.strays.remove(&key) {
                    self.registry.resolve(key, stray.container(&String::from_utf8_lossy(cgroup), record.pid));
                }
                self.registry.begin(key, record.pid, bound.container_pid, record.timestamp);
            }
            Kind::Ended => {
                self.strays.remove(&key);
                self.registry.end(key, record.timestamp);
            }
        }
        Some(())
    }

    /// A runtime was executed.
    fn follow(&mut self, claim: Claim) {
        if claim.outer != ContainerKey::HOST {
            learn_inner(claim, &self.registry, &self.readers);
            return;
        }
        match claim.standing(self.trust_rootless) {
            Standing::Host => self.follow_trusted(&claim),
            Standing::Rootless => learn_rootless(claim, &self.registry, &self.readers),
            // Nothing of it is looked at: its view of the file system may be made to hang.
            Standing::Stranger => {
                if let Some(stray) = claim.disbelieved() {
                    self.await_cgroup(claim.key, stray);
                }
            }
        }
    }

    /// Takes hold of a trusted runtime's process, while it is still there.
    fn follow_trusted(&mut self, claim: &Claim) {
        match claim.request(claim.hold()) {
            (Ok(line), process) => {
                let runtime = claim.runtime.clone();
                if let Some(invocation) =
                    Invocation::new(claim.key, runtime, process, files::ROOT, None, line)
                {
                    learn(invocation, &self.registry, &self.readers);
                }
            }
            (Err(problem), _) => self.await_cgroup(claim.key, claim.not_understood(&problem)),
        }
    }

    fn await_cgroup(&mut self, key: ContainerKey, stray: Stray) {
        self.registry.announce(key, ContainerKey::HOST, None);
        self.strays.insert(key, stray);
    }
}
