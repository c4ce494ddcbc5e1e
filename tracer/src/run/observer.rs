//! What tracing and listing share: the programs in the kernel, and the containers that become known through them.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use aya_log::EbpfLogger;
use rustix::thread::CapabilitySet;
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, watch},
};
use tracing::{debug, info, warn};

use crate::{
    bpf,
    bpf::{Bpf, EventRing, LifecycleCounters},
    discovery::{
        Lifecycle, Readers, Runtimes,
        engines::{Done, Engines},
        recovery, scan,
    },
    model::Selection,
    pipeline::Phase,
    registry::{Gaps, Registry},
    run::lease::Lease,
    sys::{
        capabilities,
        thread::{local_runtime, lock, spawn},
    },
};

/// How long finding the containers that run already may delay `ready`. That takes a second for a thousand containers; what
/// takes longer is a file system that hangs.
const FIND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long engines wait for what was found, and for bundles, before they complete it.
const ENGINES_TIMEOUT: Duration = Duration::from_secs(2);

/// How often the lifecycle ring is looked at, should nothing come.
const LIFECYCLE_INTERVAL: Duration = Duration::from_secs(1);
/// When it is looked again for what there was no room to follow.
const RECOVERY_AGAIN: Duration = Duration::from_secs(5);
/// How long nothing is recovered after something was: as many times as long as that took, within bounds.
const RECOVERY_PAUSE: u32 = 4;
/// The bounds. Events wait for their container for longer.
const RECOVERY_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Which containers become known, and how far who tells of them is believed.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// The containers that are asked for.
    pub(crate) selection: Selection,
    /// Which runtimes are followed, and where they are looked for.
    pub(crate) runtimes: Runtimes,
    /// The CRI sockets of the engines that complete what is known.
    pub(crate) sockets: Vec<PathBuf>,
    /// Whether to listen to the engines' events.
    pub(crate) listen: bool,
}

/// The programs, and what follows from what they tell.
pub(crate) struct Observer {
    /// The programs.
    pub(crate) bpf: Arc<Mutex<Bpf>>,
    /// The containers.
    pub(crate) registry: Arc<Registry>,
    /// What the programs tell of containers.
    pub(crate) lifecycle: Arc<Mutex<Lifecycle>>,
    /// The capabilities that are kept once the programs are attached; threads that start before keep no more.
    pub(crate) kept: CapabilitySet,
    failure: Arc<Failure>,
    readers: Arc<Readers>,
    runtimes: Runtimes,
    sockets: Vec<PathBuf>,
    listen: bool,
    phase: watch::Sender<Phase>,
}

/// Why a thread has ended that a run cannot do without.
#[derive(Debug, Default)]
struct Failure {
    error: Mutex<Option<anyhow::Error>>,
    reported: Notify,
}

impl Failure {
    fn report(&self, error: anyhow::Error) {
        *lock(&self.error) = Some(error);
        self.reported.notify_one();
    }

    /// Returns when there is one.
    async fn come(&self) -> anyhow::Error {
        loop {
            if let Some(error) = lock(&self.error).take() {
                return error;
            }
            self.reported.notified().await;
        }
    }
}

/// The asynchronous runtime that an observer works in.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        // One more looks for the containers that run, and one for those that were missed.
        .max_blocking_threads(Readers::THREADS + 2)
        .build()
        .context("starting the asynchronous runtime")
}

impl Observer {
    /// Loads the programs and starts to read what they tell of containers; nothing is attached yet.
    pub(crate) fn load(
        options: &bpf::Options<'_>,
        scope: Scope,
        runtime: &Runtime,
    ) -> anyhow::Result<(Self, EventRing)> {
        let (mut bpf, maps) = Bpf::load(options)?;
        // Nothing is logged else. Nor is the ring of log records read then, which whoever may open its map can spoil.
        if options.log {
            log_programs(&mut bpf, runtime)?;
        }
        let registry = Arc::new(Registry::new(scope.selection, options.host, maps.containers));
        let readers = Arc::new(Readers::new(runtime.handle().clone()));
        let lifecycle = Lifecycle::new(
            maps.lifecycle,
            Arc::clone(&registry),
            Arc::clone(&readers),
            scope.runtimes.trust_rootless,
        );
        let lifecycle = Arc::new(Mutex::new(lifecycle));
        let (phase, phases) = watch::channel(Phase::Starting);
        let for_thread = Arc::clone(&lifecycle);
        let kept = capabilities::lasting(|| bpf.can_use_maps()).context("finding out what is to be kept")?;
        let failure = Arc::new(Failure::default());
        let failed = Arc::clone(&failure);
        spawn("lifecycle", move || {
            let result = capabilities::keep_only(kept).and_then(|()| read_lifecycle(&for_thread, phases));
            if let Err(error) = result {
                failed.report(error.context("containers cannot be followed any further"));
            }
            Ok(())
        })?;
        let bpf = Arc::new(Mutex::new(bpf));
        let Scope { runtimes, sockets, listen, .. } = scope;
        let observer =
            Self { bpf, registry, lifecycle, kept, failure, readers, runtimes, sockets, listen, phase };
        Ok((observer, maps.events))
    }

    /// How far the end has come.
    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Attaches the programs, gives up what is not needed any more, and makes the containers known that run already.
    /// No engine is waited for: the result tells when they have been asked, too.
    pub(crate) async fn start(&self) -> anyhow::Result<Done> {
        lock(&self.bpf).attach()?;
        capabilities::keep_only(self.kept)?;
        debug!("capabilities that are kept: {:?}", self.kept);
        let (found, is_found) = Done::pending();
        let asked = self.ask_engines(is_found);
        self.find_running().await;
        lock(&self.lifecycle).settle();
        found.send_replace(true);
        self.recover();
        // Not before: what a container does that is still to be found would be attributed to the host.
        self.registry.trace()?;
        Ok(asked)
    }

    /// Lets the events be shown that were traced since [`Self::start`].
    pub(crate) fn show(&self) {
        self.phase.send_if_modified(|phase| {
            let starting = *phase == Phase::Starting;
            if starting {
                *phase = Phase::Running;
            }
            starting
        });
    }

    /// Recovers what is missed, in the background, each time that something is.
    fn recover(&self) {
        let (registry, lifecycle) = (Arc::clone(&self.registry), Arc::clone(&self.lifecycle));
        let (readers, runtimes) = (Arc::clone(&self.readers), self.runtimes.clone());
        let mut gaps = registry.gaps();
        tokio::spawn(async move {
            let (mut done, mut again) = (Gaps::default(), false);
            loop {
                let now = *gaps.borrow_and_update();
                if now == done {
                    tokio::select! {
                        _ = gaps.changed() => continue,
                        () = tokio::time::sleep(RECOVERY_AGAIN), if again => {}
                    }
                }
                let began = Instant::now();
                debug!("missed so far: {now:?}");
                let adopt = again || now.processes > done.processes;
                done = now;
                let (registry, lifecycle) = (Arc::clone(&registry), Arc::clone(&lifecycle));
                let (readers, runtimes) = (Arc::clone(&readers), runtimes.clone());
                let recovered = tokio::task::spawn_blocking(move || {
                    recovery::recover(&registry, &lifecycle, &readers, &runtimes, adopt)
                });
                again = recovered.await.map_err(anyhow::Error::from).flatten().unwrap_or_else(|error| {
                    warn!("containers that were missed stay unknown: {error:#}");
                    false
                });
                let (least, most) = RECOVERY_PAUSES;
                tokio::time::sleep((began.elapsed() * RECOVERY_PAUSE).clamp(least, most)).await;
            }
        });
    }

    /// Finds the containers that run already. What hangs there delays `ready`, within bounds, and goes on afterwards.
    async fn find_running(&self) {
        let (registry, readers, runtimes) =
            (Arc::clone(&self.registry), Arc::clone(&self.readers), self.runtimes.clone());
        let mut found = tokio::task::spawn_blocking(move || scan::find(&registry, &readers, &runtimes));
        let report = |found: Result<anyhow::Result<()>, tokio::task::JoinError>| {
            if let Err(error) = found.map_err(anyhow::Error::from).flatten() {
                warn!("containers that run already are attributed to the host: {error:#}");
            }
        };
        if let Ok(found) = tokio::time::timeout(FIND_TIMEOUT, &mut found).await {
            report(found);
            return;
        }
        let seconds = FIND_TIMEOUT.as_secs();
        warn!(
            "still looking for containers that run already, after {seconds} s: until they are found, their events are \
             attributed to the host"
        );
        tokio::spawn(async move {
            report(found.await);
            info!("the containers that run already are found now");
        });
    }

    /// Asks the engines what they know, and goes on doing so in the background. `found` tells that the containers
    /// were found which do not take an engine to be found; the result, that the engines' were as well.
    fn ask_engines(&self, found: Done) -> Done {
        let (done, asked) = Done::pending();
        let (registry, readers) = (Arc::clone(&self.registry), Arc::clone(&self.readers));
        let engines = Engines::new(&self.sockets, Arc::clone(&registry), self.listen);
        tokio::spawn(async move {
            let witnessed = engines.snapshot().await;
            found.within(FIND_TIMEOUT).await;
            // What has a bundle that cannot be read is for them to complete.
            registry.settled(ENGINES_TIMEOUT).await;
            let unknown = registry.witness(witnessed);
            let adopt = move || scan::adopt(&unknown, &registry, &readers);
            let adopted = tokio::task::spawn_blocking(adopt).await;
            if let Err(error) = adopted.map_err(anyhow::Error::from).flatten() {
                warn!("containers that only their engine knows pass for the host: {error:#}");
            }
            done.send_replace(true);
            engines.complete().await;
        });
        asked
    }

    /// Returns when containers cannot be followed any further, and why.
    pub(crate) async fn failed(&self) -> anyhow::Error {
        self.failure.come().await
    }

    /// What was missed of containers so far.
    pub(crate) fn missed(&self) -> anyhow::Result<LifecycleCounters> {
        lock(&self.bpf).counters().map(|counters| counters.lifecycle)
    }

    /// Detaches the programs: nothing more will be told.
    pub(crate) fn detach(&self) {
        lock(&self.bpf).detach();
        self.phase.send_replace(Phase::Detached);
    }
}

/// Hands what the programs log on to this process's log.
fn log_programs(bpf: &mut Bpf, runtime: &Runtime) -> anyhow::Result<()> {
    let logger = EbpfLogger::init(bpf.ebpf()).context("reading the BPF programs' log")?;
    let _context = runtime.enter();
    // SAFETY: the logger owns its descriptor, and neither closes nor replaces it before it is dropped.
    let mut logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }
        .context("watching the BPF programs' log")?;
    runtime.spawn(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
    Ok(())
}

/// Handles lifecycle records as they come, whatever the other threads wait for: a runtime's process must be
/// looked at before it ends.
fn read_lifecycle(lifecycle: &Mutex<Lifecycle>, mut phases: watch::Receiver<Phase>) -> anyhow::Result<()> {
    local_runtime()?.block_on(async {
        // SAFETY: the descriptor is owned, and neither closed nor replaced before it is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(lock(lifecycle).readiness()?, Interest::READABLE) }
            .context("watching the lifecycle ring")?;
        loop {
            tokio::select! {
                guard = fd.readable() => guard.context("watching the lifecycle ring")?.clear_ready(),
                changed = phases.changed() => {
                    if changed.is_err() || *phases.borrow() == Phase::Detached {
                        return Ok(());
                    }
                }
                // Should another process have written to the ring, the programs may not wake this thread any more.
                () = tokio::time::sleep(LIFECYCLE_INTERVAL) => {}
            }
            let mut lifecycle = lock(lifecycle);
            lifecycle.drain();
            lifecycle.check()?;
        }
    })
}
