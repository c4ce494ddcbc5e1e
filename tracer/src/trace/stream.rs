//! From the event ring to the sink, each event with its container.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracer_common::container::ContainerKey;
use tracing::warn;

use super::{known::Knowledge, router::Router, sink::Sink};
use crate::{
    bpf::{Bpf, EventRing},
    containers::{Attribution, Lookup, Registry},
    observe::{Observer, Phase, lock},
    render::Lost,
    runtime::Lifecycle,
};

/// Records handled before the lifecycle ring is looked at again.
const BATCH: usize = 4096;
/// How often losses are reported while there are any.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Reads events and hands them on.
pub(super) struct Stream {
    ring: EventRing,
    bpf: Arc<Mutex<Bpf>>,
    registry: Arc<Registry>,
    router: Router<Live>,
    reported: HashMap<&'static str, u64>,
    /// Starts, processes and ends of containers that were missed, as far as that was told.
    missed: u64,
}

/// The registry, and those who tell it.
struct Live {
    lifecycle: Arc<Mutex<Lifecycle>>,
    registry: Arc<Registry>,
}

impl Knowledge for Live {
    fn learn(&mut self) -> u64 {
        lock(&self.lifecycle).drain();
        self.registry.revision()
    }

    fn look_up(&self, key: ContainerKey) -> Lookup {
        self.registry.look_up(key)
    }

    fn unknown(&self) -> Attribution {
        self.registry.unknown()
    }
}

impl Stream {
    pub(super) fn new(ring: EventRing, observer: &Observer, sink: Sink) -> Self {
        let registry = Arc::clone(&observer.registry);
        let live = Live { lifecycle: Arc::clone(&observer.lifecycle), registry: Arc::clone(&registry) };
        let router = Router::new(live, sink);
        let bpf = Arc::clone(&observer.bpf);
        Self { ring, bpf, registry, router, reported: HashMap::new(), missed: 0 }
    }

    /// Handles events until the programs are detached and the ring is empty.
    pub(super) async fn run(mut self, mut phases: watch::Receiver<Phase>) -> anyhow::Result<()> {
        let mut changes = self.registry.changes();
        let mut waiter = self.ring.waiter()?;
        let mut report = tokio::time::interval(REPORT_INTERVAL);
        self.router.sink.flush();
        while *phases.borrow() == Phase::Running {
            tokio::select! {
                result = waiter.wait() => result?,
                // Only who waits for a container to become known has to look at once.
                _ = changes.changed(), if self.router.is_waiting() => {}
                _ = phases.changed() => {}
                _ = report.tick() => self.report_losses()?,
            }
            let records = self.look();
            if waiter.found(records, &mut self.ring)? {
                self.look();
            }
        }
        self.look();
        self.finish_waiting().await;
        self.report_losses()?;
        self.router.sink.flush();
        Ok(())
    }

    /// Handles every record that is there and writes what came of them. Returns how many there were.
    fn look(&mut self) -> usize {
        let Self { ring, registry, router, .. } = self;
        let mut total = 0;
        loop {
            router.learn();
            let ended = registry.ended();
            let mut left = BATCH;
            total += ring.drain(|record| {
                router.handle(record);
                left -= 1;
                left > 0
            });
            let drained = left > 0;
            router.settle(Instant::now());
            let over = router.forget(&ended, drained);
            if !over.is_empty() {
                registry.forget(&over);
            }
            router.sink.flush();
            if drained {
                return total;
            }
        }
    }

    /// Waits for the bundles that are still being read, within bounds.
    async fn finish_waiting(&mut self) {
        let mut changes = self.registry.changes();
        while self.router.is_waiting() {
            let _ = tokio::time::timeout(Duration::from_millis(50), changes.changed()).await;
            self.router.settle(Instant::now());
        }
    }

    /// Tells of what was lost since the last report.
    fn report_losses(&mut self) -> anyhow::Result<()> {
        let counters = lock(&self.bpf).counters()?;
        let in_kernel =
            [("buffer-full", counters.events.buffer_full), ("program-skipped", counters.events.skipped)];
        let missed = counters.missed();
        if missed > self.missed {
            warn!("{} starts, processes or ends of containers were missed", missed - self.missed);
            self.missed = missed;
        }
        let hook = self.router.sink.hook();
        for (reason, count) in in_kernel.into_iter().chain(self.router.sink.lost_by_reason()) {
            let reported = self.reported.entry(reason).or_default();
            if count > *reported {
                self.router.sink.lost(&Lost { count: count - *reported, reason, hook });
                *reported = count;
            }
        }
        Ok(())
    }
}
