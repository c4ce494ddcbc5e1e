//! What tracing and listing share: the programs in the kernel, and the containers that become known through them.

mod engine_task;
mod lifecycle_reader;
mod program_log;
mod recovery_task;
mod running_containers;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use anyhow::Context as _;
use rustix::thread::CapabilitySet;
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
};
use tracing::debug;

use crate::{
    bpf,
    bpf::{Bpf, EventRing, LifecycleCounters},
    discovery::{Lifecycle, Readers, Resolver, Runtimes, engines::Completion},
    model::Selection,
    pipeline::Phase,
    registry::Registry,
    sys::{capabilities, thread::lock},
};
use lifecycle_reader::Failure;

/// The containers that become known, and how.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// The selected containers.
    pub(crate) selection: Selection,
    /// The options that select them, for messages.
    pub(crate) options: String,
    /// The runtimes to follow, and where their state is.
    pub(crate) runtimes: Runtimes,
    /// The CRI sockets of the engines that complete what is known.
    pub(crate) sockets: Vec<PathBuf>,
    /// Whether to subscribe to the engines' events.
    pub(crate) listen: bool,
}

/// The programs, and what follows from their lifecycle records.
pub(crate) struct Observer {
    /// The programs.
    pub(crate) bpf: Arc<Mutex<Bpf>>,
    /// The containers.
    pub(crate) registry: Arc<Registry>,
    /// The reader of lifecycle records.
    pub(crate) lifecycle: Arc<Mutex<Lifecycle>>,
    /// The capabilities that are retained once the programs are attached; threads that start before retain no more.
    pub(crate) kept: CapabilitySet,
    resolver: Resolver,
    failure: Arc<Failure>,
    runtimes: Runtimes,
    sockets: Vec<PathBuf>,
    listen: bool,
    phase: watch::Sender<Phase>,
}

/// The asynchronous runtime of an observer.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        // One more searches for running containers, and one for those whose records were lost.
        .max_blocking_threads(Readers::THREADS + 2)
        .build()
        .context("starting the asynchronous runtime")
}

impl Observer {
    /// Loads the programs and starts to read lifecycle records; nothing is attached yet.
    pub(crate) fn load(
        options: &bpf::Options<'_>,
        scope: Scope,
        runtime: &Runtime,
    ) -> anyhow::Result<(Self, EventRing)> {
        let (mut bpf, maps) = Bpf::load(options)?;
        // Otherwise nothing is logged, and the ring of log records, which other processes may spoil, is not read.
        if options.log {
            program_log::forward(&mut bpf, runtime)?;
        }
        let registry = Arc::new(Registry::new(scope.selection, options.host, maps.containers));
        let readers = Arc::new(Readers::new(runtime.handle().clone()));
        let resolver = Resolver { registry: Arc::clone(&registry), readers };
        let lifecycle = Lifecycle::new(maps.lifecycle, resolver.clone(), scope.runtimes.trust_rootless);
        let lifecycle = Arc::new(Mutex::new(lifecycle));
        let (phase, phases) = watch::channel(Phase::Starting);
        let kept =
            capabilities::lasting(|| bpf.can_use_maps()).context("determining which capabilities to keep")?;
        let failure = lifecycle_reader::start(&lifecycle, phases, kept)?;
        let bpf = Arc::new(Mutex::new(bpf));
        let Scope { runtimes, sockets, listen, .. } = scope;
        let observer =
            Self { bpf, registry, lifecycle, kept, resolver, failure, runtimes, sockets, listen, phase };
        Ok((observer, maps.events))
    }

    /// How far the run has come.
    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Attaches the programs, drops the capabilities that are not needed any more, and finds the containers that were
    /// running already. It does not wait for engines: the result is complete when their answers were applied.
    pub(crate) async fn start(&self) -> anyhow::Result<Completion> {
        lock(&self.bpf).attach()?;
        capabilities::keep_only(self.kept)?;
        debug!("capabilities that are kept: {:?}", self.kept);
        let (found, scanned) = Completion::pending();
        let answered = engine_task::start(&self.sockets, self.listen, self.resolver.clone(), scanned);
        running_containers::find(self.resolver.clone(), self.runtimes.clone()).await;
        lock(&self.lifecycle).scan_completed();
        found.send_replace(true);
        recovery_task::start(self.resolver.clone(), Arc::clone(&self.lifecycle), self.runtimes.clone());
        // Not before: events of a container that is still to be found would be attributed to the host.
        self.registry.slots.trace()?;
        Ok(answered)
    }

    /// Has the events shown that were traced since [`Self::start`].
    pub(crate) fn show(&self) {
        self.phase.send_if_modified(|phase| {
            let starting = *phase == Phase::Starting;
            if starting {
                *phase = Phase::Running;
            }
            starting
        });
    }

    /// Waits until containers cannot be followed any further, and returns why.
    pub(crate) async fn failed(&self) -> anyhow::Error {
        self.failure.wait().await
    }

    /// What was lost of lifecycle records so far.
    pub(crate) fn missed(&self) -> anyhow::Result<LifecycleCounters> {
        lock(&self.bpf).counters().map(|counters| counters.lifecycle)
    }

    /// Detaches the programs: no more records will be submitted.
    pub(crate) fn detach(&self) {
        lock(&self.bpf).detach();
        self.phase.send_replace(Phase::Detached);
    }
}
