//! Reading the ring buffer of lifecycle records, ahead of the events that they explain.

use std::{
    collections::HashMap,
    mem::size_of,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use tokio::runtime::Handle;
use tracer_common::{
    container::ContainerKey,
    lifecycle::{Bound, Kind, Record, Runtime},
};
use tracing::warn;

use super::invocation::{Invocation, learn};
use crate::{containers::Registry, wire};

/// The reader of the ring. Whoever drains it does so for all: the registry is up to date afterwards.
pub struct Lifecycle {
    ring: RingBuf<MapData>,
    registry: Arc<Registry>,
    /// Where bundles are read: on threads of their own, so that none is waited for here.
    readers: Handle,
    /// Invocations that wait for their container's cgroup.
    unknown: HashMap<ContainerKey, Invocation>,
}

impl Lifecycle {
    /// A reader that tells `registry` what it learns.
    pub fn new(ring: RingBuf<MapData>, registry: Arc<Registry>, readers: Handle) -> Self {
        Self { ring, registry, readers, unknown: HashMap::new() }
    }

    /// A descriptor that is readable when there is something to drain.
    pub fn readiness(&self) -> anyhow::Result<OwnedFd> {
        self.ring.as_fd().try_clone_to_owned().context("duplicating the lifecycle ring's descriptor")
    }

    /// Handles every record that is there.
    pub fn drain(&mut self) {
        let Self { ring, registry, readers, unknown } = self;
        while let Some(bytes) = ring.next() {
            if handle(&bytes, registry, readers, unknown).is_none() {
                warn!("a lifecycle record of {} bytes makes no sense", bytes.len());
            }
        }
    }
}

fn handle(
    bytes: &[u8],
    registry: &Arc<Registry>,
    readers: &Handle,
    unknown: &mut HashMap<ContainerKey, Invocation>,
) -> Option<()> {
    let record: Record = wire::read(bytes)?;
    let key = record.container;
    match Kind::try_from(record.kind).ok()? {
        Kind::Runtime => {
            let runtime: Runtime = wire::read(bytes)?;
            let args = bytes.get(size_of::<Runtime>()..)?.get(..usize::from(runtime.args_len))?;
            match Invocation::of_record(&runtime, args, key) {
                Some(invocation) if invocation.needs_cgroup() => {
                    registry.announce(key, None);
                    unknown.insert(key, invocation);
                }
                Some(invocation) => learn(invocation, registry, readers),
                None => {}
            }
        }
        Kind::Bound => {
            let bound: Bound = wire::read(bytes)?;
            let cgroup = bytes.get(size_of::<Bound>()..)?.get(..bound.cgroup_len as usize)?;
            if let Some(mut invocation) = unknown.remove(&key) {
                invocation.set_cgroup(&String::from_utf8_lossy(cgroup), record.pid);
                learn(invocation, registry, readers);
            }
        }
        Kind::Ended => {
            unknown.remove(&key);
            registry.end(key, record.timestamp);
        }
    }
    Some(())
}
