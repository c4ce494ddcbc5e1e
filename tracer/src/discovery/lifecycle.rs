//! Reads the ring buffer of lifecycle records, ahead of the events that they explain.

use std::os::fd::OwnedFd;

use anyhow::Context as _;
use tracer_common::container::ContainerKey;
use tracing::{debug, warn};

use crate::{
    bpf::{Corrupt, MappedRing},
    discovery::{
        executions::Executions, lifecycle_record::LifecycleRecord, parent_process, resolver::Resolver,
        runtime_execution::RuntimeExecution,
    },
};

/// The reader of the ring. Whoever drains it does so for all: the registry is up to date afterwards.
pub(crate) struct Lifecycle {
    ring: MappedRing,
    records: Records,
    /// Why the ring could not be read any further.
    failure: Option<Corrupt>,
}

/// Handles the records, which the ring lends out.
struct Records {
    resolver: Resolver,
    executions: Executions,
}

impl Lifecycle {
    /// A reader that passes what it reads to the registry of `resolver`. Runtimes of users are trusted if
    /// `trust_rootless`.
    pub(crate) fn new(ring: MappedRing, resolver: Resolver, trust_rootless: bool) -> Self {
        let executions = Executions::new(resolver.clone(), trust_rootless);
        Self { ring, records: Records { resolver, executions }, failure: None }
    }

    /// The containers that were running already have been found.
    pub(crate) fn scan_completed(&mut self) {
        self.drain();
        self.records.executions.scan_completed();
    }

    /// A descriptor that is readable when there is something to drain.
    pub(crate) fn readiness(&self) -> anyhow::Result<OwnedFd> {
        self.ring.readiness().context("duplicating the lifecycle ring's descriptor")
    }

    /// A container has begun, and the record was lost.
    pub(crate) fn begun(&mut self, key: ContainerKey, pid: u32, container_pid: u32, at: u64) {
        self.records.executions.begun(key, "", pid, container_pid, at);
    }

    /// A container has ended, and the record was lost.
    pub(crate) fn ended(&mut self, key: ContainerKey, at: u64) {
        self.records.executions.ended(key, at);
    }

    /// Handles all records in the ring. If the ring cannot be read any further, [`Self::check`] fails.
    pub(crate) fn drain(&mut self) {
        let Self { ring, records, failure } = self;
        if failure.is_some() {
            return;
        }
        let drained = ring.drain(|bytes| {
            if let Some(record) = LifecycleRecord::decode(bytes) {
                records.handle(record);
            } else {
                warn!("invalid lifecycle record of {} bytes", bytes.len());
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

impl Records {
    fn handle(&mut self, record: LifecycleRecord<'_>) {
        let Self { resolver, executions } = self;
        match record {
            LifecycleRecord::Runtime(runtime, args) => {
                executions.executed(RuntimeExecution::new(&runtime, args));
            }
            LifecycleRecord::Bound(bound, cgroup) => {
                let (record, cgroup) = (bound.record, String::from_utf8_lossy(cgroup));
                let (key, pid) = (record.container, record.pid);
                executions.begun(key, &cgroup, pid, bound.container_pid, record.timestamp);
            }
            LifecycleRecord::Ended(record) => executions.ended(record.container, record.timestamp),
            LifecycleRecord::Unannounced(bound, cgroup) => {
                let (key, cgroup) = (bound.record.container, String::from_utf8_lossy(cgroup));
                debug!("process {} is in cgroup {cgroup:?}: container {}", bound.record.pid, key.slot());
                resolver.registry.announce(key, ContainerKey::HOST, None);
                parent_process::find_container(&bound, resolver);
            }
        }
    }
}
