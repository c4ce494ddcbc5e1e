//! From the event ring to the sink, each event with its container.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::sync::watch;
use tracer_common::container::ContainerKey;

use crate::{
    bpf::{Bpf, EventRing},
    discovery::Lifecycle,
    output::Lost,
    pipeline::{Phase, attribution_cache::Knowledge, router::Router, sink::Sink},
    registry::{Attribution, Lookup, Registry},
    sys::thread::lock,
};

/// Records handled before the lifecycle ring is looked at again.
const BATCH: usize = 4096;
/// How often it is looked for losses while events come.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// How often while none do.
const IDLE_REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The hook of what is missed of containers, in reports of losses.
const LIFECYCLE: &str = "lifecycle";

/// Reads events and hands them on.
pub(crate) struct Stream {
    ring: EventRing,
    bpf: Arc<Mutex<Bpf>>,
    registry: Arc<Registry>,
    router: Router<Live>,
    /// What was told of losses, by hook and reason.
    reported: HashMap<(&'static str, &'static str), u64>,
    /// When it was looked for losses last.
    looked_at: Instant,
    /// Whether events have come since.
    busy: bool,
    /// Whether what is lost from now on is nobody's loss.
    sealed: bool,
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

    fn miss(&self, key: ContainerKey) {
        self.registry.miss(key);
    }

    fn unknown(&self) -> Attribution {
        self.registry.unknown()
    }
}

impl Stream {
    pub(crate) fn new(
        ring: EventRing,
        bpf: Arc<Mutex<Bpf>>,
        registry: Arc<Registry>,
        lifecycle: Arc<Mutex<Lifecycle>>,
        sink: Sink,
    ) -> Self {
        let live = Live { lifecycle, registry: Arc::clone(&registry) };
        let router = Router::new(live, sink);
        Self {
            ring,
            bpf,
            registry,
            router,
            reported: HashMap::new(),
            looked_at: Instant::now(),
            busy: false,
            sealed: false,
        }
    }

    /// Handles events until the programs are detached and the ring is empty.
    pub(crate) async fn run(mut self, mut phases: watch::Receiver<Phase>) -> anyhow::Result<()> {
        let mut changes = self.registry.changes();
        let mut waiter = self.ring.waiter()?;
        self.router.sink.flush();
        // Nothing is shown before `ready` is printed.
        while *phases.borrow_and_update() == Phase::Starting {
            phases.changed().await.context("waiting for the start")?;
        }
        while *phases.borrow() == Phase::Running {
            tokio::select! {
                result = waiter.wait() => result?,
                // Only who waits for a container to become known has to look at once.
                _ = changes.changed(), if self.router.is_waiting() => {}
                _ = phases.changed() => {}
                () = tokio::time::sleep_until(self.report_due().into()) => {}
            }
            let records = self.look()?;
            if waiter.found(records, &mut self.ring)? {
                waiter.found_again(self.look()?);
            }
        }
        self.look()?;
        self.finish_waiting().await;
        self.report_losses()?;
        self.router.sink.flush();
        Ok(())
    }

    /// Handles every record that is there and writes what came of them. Returns how many there were.
    fn look(&mut self) -> anyhow::Result<usize> {
        let mut total = 0;
        loop {
            let Self { ring, registry, router, .. } = &mut *self;
            router.learn();
            let ended = registry.ended();
            let mut left = BATCH;
            total += ring.drain(|record| {
                router.handle(record);
                left -= 1;
                left > 0
            })?;
            let drained = left > 0;
            router.settle(Instant::now());
            let over = router.forget(&ended, drained);
            if !over.is_empty() {
                registry.forget(&over);
            }
            self.busy |= left < BATCH;
            let is_over = self.router.sink.is_over();
            if Instant::now() >= self.report_due() || is_over && !self.sealed {
                self.report_losses()?;
                self.sealed = is_over;
            }
            self.router.sink.flush();
            if drained {
                return Ok(total);
            }
        }
    }

    /// When it is time to look for losses.
    fn report_due(&self) -> Instant {
        self.looked_at + if self.busy { REPORT_INTERVAL } else { IDLE_REPORT_INTERVAL }
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
        self.looked_at = Instant::now();
        self.busy = false;
        let counters = lock(&self.bpf).counters()?;
        self.registry.missed(counters.lifecycle.full, counters.lifecycle.not_followed());
        let sink = &mut self.router.sink;
        let hook = sink.hook();
        let in_kernel =
            [("buffer-full", counters.events.buffer_full), ("program-skipped", counters.events.skipped)];
        for (reason, count) in in_kernel {
            let new = news(&mut self.reported, hook, reason, count);
            if self.sealed {
                sink.unasked(new);
            } else if new > 0 {
                sink.lost(&Lost { count: new, reason: reason.into(), hook: hook.into() });
            }
        }
        let above = sink.lost_by_reason().map(|(reason, count)| (hook, reason, count));
        let lifecycle = counters.lifecycle.by_reason().map(|(reason, count)| (LIFECYCLE, reason, count));
        for (hook, reason, count) in above.into_iter().chain(lifecycle) {
            let new = news(&mut self.reported, hook, reason, count);
            if new > 0 {
                sink.lost(&Lost { count: new, reason: reason.into(), hook: hook.into() });
            }
        }
        Ok(())
    }
}

/// By how much a count has grown since it was told last.
fn news(
    reported: &mut HashMap<(&'static str, &'static str), u64>,
    hook: &'static str,
    reason: &'static str,
    count: u64,
) -> u64 {
    let told = reported.insert((hook, reason), count).unwrap_or(0);
    count.saturating_sub(told)
}
