//! From the event ring to the sink, each event with its container.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};
use tracer_common::container::ContainerKey;

use crate::{
    bpf::{Bpf, EventRing},
    discovery::Lifecycle,
    output::Lost,
    pipeline::{Phase, attribution_cache::Attributor, router::Router, sink::Sink},
    registry::{Attribution, Lookup, Registry},
    sys::thread::lock,
};

/// Records handled before the lifecycle ring is drained again.
const BATCH: usize = 4096;
/// How often losses are reported while events come.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// How often while none do.
const IDLE_REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The hook of lost lifecycle records, in reports of losses.
const LIFECYCLE: &str = "lifecycle";

/// Reads events and hands them on.
pub(crate) struct RingSource {
    ring: EventRing,
    bpf: Arc<Mutex<Bpf>>,
    registry: Arc<Registry>,
    router: Router<Live>,
    /// Losses that were reported, by hook and reason.
    reported: HashMap<(String, &'static str), u64>,
    /// When losses were looked for last.
    reported_at: Instant,
    /// Whether events have come since.
    busy: bool,
    /// Whether no more events are needed, so that what is lost from now on is no loss.
    sealed: bool,
    /// Frames that other parts of the run send to the reader.
    messages: mpsc::UnboundedReceiver<Vec<u8>>,
}

/// The registry, with the lifecycle records that it is updated from.
struct Live {
    lifecycle: Arc<Mutex<Lifecycle>>,
    registry: Arc<Registry>,
}

impl Attributor for Live {
    fn update(&mut self) -> u64 {
        lock(&self.lifecycle).drain();
        self.registry.revision()
    }

    fn look_up(&self, key: ContainerKey) -> Lookup {
        self.registry.look_up(key)
    }

    fn report_missing(&self, key: ContainerKey) {
        self.registry.miss(key);
    }

    fn unresolved(&self) -> Attribution {
        self.registry.unknown()
    }
}

impl RingSource {
    pub(crate) fn new(
        ring: EventRing,
        bpf: Arc<Mutex<Bpf>>,
        registry: Arc<Registry>,
        lifecycle: Arc<Mutex<Lifecycle>>,
        sink: Sink,
        messages: mpsc::UnboundedReceiver<Vec<u8>>,
    ) -> Self {
        let live = Live { lifecycle, registry: Arc::clone(&registry) };
        Self {
            ring,
            bpf,
            registry,
            router: Router::new(Arc::clone(sink.kinds()), live, sink),
            reported: HashMap::new(),
            reported_at: Instant::now(),
            busy: false,
            sealed: false,
            messages,
        }
    }

    /// Handles events until the programs are detached and the ring is empty. Returns the sink, for what is said at the end.
    pub(crate) async fn run(mut self, mut phases: watch::Receiver<Phase>) -> anyhow::Result<Sink> {
        let mut changes = self.registry.changes();
        let mut waiter = self.ring.waiter()?;
        self.router.sink.flush();
        // Nothing is shown before `ready` is printed.
        while *phases.borrow_and_update() == Phase::Starting {
            tokio::select! {
                changed = phases.changed() => changed.context("waiting for the start")?,
                Some(frames) = self.messages.recv() => {
                    self.router.sink.append(&frames);
                    self.router.sink.flush();
                }
            }
        }
        let running = self.registry.list();
        self.router.sink.expect(running.iter().map(|listed| &*listed.container));
        while *phases.borrow() == Phase::Running {
            let keeps_back = self.router.is_keeping_back();
            let report_due = self.report_due();
            tokio::select! {
                result = waiter.wait() => result?,
                // At once only if events are kept back for a container.
                _ = changes.changed(), if keeps_back => {}
                _ = phases.changed() => {}
                Some(frames) = self.messages.recv() => self.router.sink.append(&frames),
                () = tokio::time::sleep_until(report_due.into()) => {}
            }
            let records = self.look()?;
            if waiter.found(records, &mut self.ring)? {
                waiter.found_again(self.look()?);
            }
        }
        self.look()?;
        self.finish_pending().await;
        self.report_losses()?;
        self.router.sink.flush();
        Ok(self.router.sink)
    }

    /// Handles every record that is there and writes what came of them. Returns how many there were.
    fn look(&mut self) -> anyhow::Result<usize> {
        let mut total = 0;
        loop {
            let Self { ring, registry, router, .. } = &mut *self;
            router.update();
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

    /// When losses are reported next.
    fn report_due(&self) -> Instant {
        self.reported_at + if self.busy { REPORT_INTERVAL } else { IDLE_REPORT_INTERVAL }
    }

    /// Waits for the bundles that are still being read, within bounds.
    async fn finish_pending(&mut self) {
        let mut changes = self.registry.changes();
        while self.router.is_keeping_back() {
            let _ = tokio::time::timeout(Duration::from_millis(50), changes.changed()).await;
            self.router.settle(Instant::now());
        }
    }

    /// Reports what was lost since the last report.
    fn report_losses(&mut self) -> anyhow::Result<()> {
        self.reported_at = Instant::now();
        self.busy = false;
        let counters = lock(&self.bpf).counters()?;
        self.registry.missed(counters.lifecycle.full, counters.lifecycle.not_followed());
        let kinds = Arc::clone(self.router.sink.kinds());
        for (kind, in_kernel) in kinds.iter().zip(&counters.kinds) {
            let hook = kind.name();
            for (reason, count) in
                [("buffer-full", in_kernel.buffer_full), ("program-skipped", in_kernel.skipped)]
            {
                let new = self.since_last_report(hook, reason, count);
                if self.sealed {
                    self.router.sink.not_needed(new);
                } else {
                    self.report(hook, reason, new);
                }
            }
            let counts = self.router.sink.tally().of_kind(kind.index);
            for (reason, count) in [("unattributed", counts.unattributed), ("output", counts.output)] {
                let new = self.since_last_report(hook, reason, count);
                self.report(hook, reason, new);
            }
        }
        let malformed = self.router.sink.tally().malformed();
        let names = kinds.names();
        let new = self.since_last_report(&names, "malformed", malformed);
        self.report(&names, "malformed", new);
        for (reason, count) in counters.lifecycle.by_reason() {
            let new = self.since_last_report(LIFECYCLE, reason, count);
            self.report(LIFECYCLE, reason, new);
        }
        Ok(())
    }

    /// By how much a count has grown since it was reported last.
    fn since_last_report(&mut self, hook: &str, reason: &'static str, count: u64) -> u64 {
        let reported = self.reported.entry((hook.to_owned(), reason)).or_default();
        count.saturating_sub(std::mem::replace(reported, count))
    }

    fn report(&mut self, hook: &str, reason: &'static str, count: u64) {
        if count > 0 {
            self.router.sink.lost(&Lost { count, reason: reason.into(), hook: hook.to_owned().into() });
        }
    }
}
