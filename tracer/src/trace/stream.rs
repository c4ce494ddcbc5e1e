//! From the event ring to the sink, each event with its container.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracer_common::container::ContainerKey;

use super::{Event, sink::Sink};
use crate::{
    bpf::{Bpf, EventRing},
    clock::WallClock,
    containers::{Attribution, Choice, Lookup, Registry},
    observe::{Observer, Phase, lock},
    render::Lost,
    runtime::Lifecycle,
};

/// How long events wait for their container's bundle to be read.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many events of one container wait.
const WAITING_MAX: usize = 10_000;
/// Records handled before the lifecycle ring is looked at again.
const BATCH: usize = 4096;
/// How often it is looked for losses while events come.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// How often while none do.
const IDLE_REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The hook of what is missed of containers, in reports of losses.
const LIFECYCLE: &str = "lifecycle";
/// Records come in the order in which they were reserved, give or take what runs on another CPU meanwhile.
const DISORDER: Duration = Duration::from_secs(1);

/// Attributes events and hands them on.
pub(super) struct Stream {
    ring: EventRing,
    bpf: Arc<Mutex<Bpf>>,
    router: Router,
    /// What was told of losses, by hook and reason.
    reported: HashMap<(&'static str, &'static str), u64>,
    /// When it was looked for losses last.
    looked_at: Instant,
    /// Whether events have come since.
    busy: bool,
    /// Whether what is lost from now on is nobody's loss.
    sealed: bool,
}

/// All of it but the ring, which lends the records out.
struct Router {
    lifecycle: Arc<Mutex<Lifecycle>>,
    registry: Arc<Registry>,
    sink: Sink,
    /// By slot: what is known already, without a lock.
    known: Vec<Option<(ContainerKey, Arc<Attribution>)>>,
    /// The registry's when `known` was known.
    revision: u64,
    waiting: HashMap<ContainerKey, Waiting>,
    /// Containers that were waited for in vain.
    given_up: HashSet<ContainerKey>,
    /// What is done with their events.
    unknown: Attribution,
    /// Of the last event, in nanoseconds of `CLOCK_BOOTTIME`.
    last_timestamp: u64,
}

/// Events whose container is not known yet, in order.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    records: Vec<Box<[u8]>>,
}

impl Stream {
    pub(super) fn new(ring: EventRing, observer: &Observer, sink: Sink) -> Self {
        let router = Router {
            lifecycle: Arc::clone(&observer.lifecycle),
            unknown: observer.registry.unknown(),
            registry: Arc::clone(&observer.registry),
            sink,
            known: Vec::new(),
            revision: 0,
            waiting: HashMap::new(),
            given_up: HashSet::new(),
            last_timestamp: 0,
        };
        let bpf = Arc::clone(&observer.bpf);
        Self {
            ring,
            bpf,
            router,
            reported: HashMap::new(),
            looked_at: Instant::now(),
            busy: false,
            sealed: false,
        }
    }

    /// Handles events until the programs are detached and the ring is empty.
    pub(super) async fn run(mut self, mut phases: watch::Receiver<Phase>) -> anyhow::Result<()> {
        let mut changes = self.router.registry.changes();
        let mut waiter = self.ring.waiter()?;
        self.router.sink.flush();
        while *phases.borrow() == Phase::Running {
            tokio::select! {
                result = waiter.wait() => result?,
                // Only who waits for a container to become known has to look at once.
                _ = changes.changed(), if !self.router.waiting.is_empty() => {}
                _ = phases.changed() => {}
                () = tokio::time::sleep_until(self.report_due().into()) => {}
            }
            let records = self.look()?;
            if waiter.found(records, &mut self.ring)? {
                self.look()?;
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
            let Self { ring, router, .. } = &mut *self;
            router.learn();
            let ended = router.registry.ended();
            let mut left = BATCH;
            total += ring.drain(|record| {
                router.handle(record);
                left -= 1;
                left > 0
            });
            let drained = left > 0;
            router.settle(Instant::now());
            router.forget(&ended, drained);
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
        let mut changes = self.router.registry.changes();
        while !self.router.waiting.is_empty() {
            let _ = tokio::time::timeout(Duration::from_millis(50), changes.changed()).await;
            self.router.settle(Instant::now());
        }
    }

    /// Tells of what was lost since the last report.
    fn report_losses(&mut self) -> anyhow::Result<()> {
        self.looked_at = Instant::now();
        self.busy = false;
        let counters = lock(&self.bpf).counters()?;
        self.router.registry.missed(counters.lifecycle.full, counters.lifecycle.not_followed());
        let sink = &mut self.router.sink;
        let hook = sink.hook();
        let in_kernel =
            [("buffer-full", counters.events.buffer_full), ("program-skipped", counters.events.skipped)];
        for (reason, count) in in_kernel {
            let new = news(&mut self.reported, hook, reason, count);
            if self.sealed {
                sink.unasked(new);
            } else if new > 0 {
                sink.lost(&Lost { count: new, reason, hook });
            }
        }
        let above = sink.lost_by_reason().map(|(reason, count)| (hook, reason, count));
        let lifecycle = counters.lifecycle.by_reason().map(|(reason, count)| (LIFECYCLE, reason, count));
        for (hook, reason, count) in above.into_iter().chain(lifecycle) {
            let new = news(&mut self.reported, hook, reason, count);
            if new > 0 {
                sink.lost(&Lost { count: new, reason, hook });
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

impl Router {
    /// Brings the registry up to date: what was submitted before an event is known before it is handled.
    fn learn(&mut self) {
        lock(&self.lifecycle).drain();
        let revision = self.registry.revision();
        if self.revision != revision {
            self.revision = revision;
            self.known.clear();
        }
    }

    fn handle(&mut self, record: &[u8]) {
        let Some(event) = self.sink.accept(record) else { return };
        self.last_timestamp = event.header.timestamp;
        let key = event.header.container;
        if key == ContainerKey::HOST {
            // The programs let these through only where they are asked for.
            self.sink.show(&event, None);
        } else if let Some(waiting) = self.waiting.get_mut(&key) {
            waiting.records.push(record.into());
            if waiting.records.len() >= WAITING_MAX {
                self.give_up(key);
            }
        } else if let Some(attribution) = self.attribution(key) {
            Self::deliver(&mut self.sink, &event, &attribution);
        } else if self.given_up.contains(&key) {
            Self::deliver(&mut self.sink, &event, &self.unknown);
        } else {
            self.waiting.insert(key, Waiting { since: Instant::now(), records: vec![record.into()] });
        }
    }

    /// What is known of a container.
    fn attribution(&mut self, key: ContainerKey) -> Option<Arc<Attribution>> {
        let slot = key.slot() as usize;
        if let Some(Some((known, attribution))) = self.known.get(slot)
            && *known == key
        {
            return Some(Arc::clone(attribution));
        }
        let attribution = match self.registry.look_up(key) {
            Lookup::Known(attribution) => attribution,
            Lookup::Pending => return None,
            Lookup::Unknown => {
                // A record that was reserved earlier but not yet submitted hid the one that tells.
                self.learn();
                match self.registry.look_up(key) {
                    Lookup::Known(attribution) => attribution,
                    Lookup::Pending => return None,
                    Lookup::Unknown => {
                        self.registry.miss(key);
                        return None;
                    }
                }
            }
        };
        if self.known.len() <= slot {
            self.known.resize(slot + 1, None);
        }
        self.known[slot] = Some((key, Arc::clone(&attribution)));
        self.given_up.remove(&key);
        Some(attribution)
    }

    /// Delivers the events of containers that have become known, and of those that were waited for too long.
    fn settle(&mut self, now: Instant) {
        let keys: Vec<ContainerKey> = self.waiting.keys().copied().collect();
        for key in keys {
            if let Some(attribution) = self.attribution(key) {
                Self::deliver_all(&mut self.sink, self.waiting.remove(&key), &attribution);
            } else if self.waiting.get(&key).is_some_and(|waiting| now - waiting.since >= PATIENCE) {
                self.give_up(key);
            }
        }
    }

    fn give_up(&mut self, key: ContainerKey) {
        self.given_up.insert(key);
        Self::deliver_all(&mut self.sink, self.waiting.remove(&key), &self.unknown);
    }

    /// Delivers events that have waited. They were accepted when they came.
    fn deliver_all(sink: &mut Sink, waiting: Option<Waiting>, attribution: &Attribution) {
        for record in waiting.map_or_else(Vec::new, |waiting| waiting.records) {
            if let Some(event) = Event::decode(sink.tracer(), &record) {
                Self::deliver(sink, &event, attribution);
            }
        }
    }

    fn deliver(sink: &mut Sink, event: &Event<'_>, attribution: &Attribution) {
        match attribution.choice {
            Choice::Selected => sink.show(event, Some(&attribution.container)),
            Choice::Rejected => sink.filtered(),
            Choice::Undecidable => sink.unattributed(),
        }
    }

    /// Forgets containers that had ended before the ring was read, if nothing of them can be in it any more: not
    /// even behind a record that was reserved but not submitted when the ring was read.
    fn forget(&mut self, ended: &[(ContainerKey, u64)], drained: bool) {
        let disorder = u64::try_from(DISORDER.as_nanos()).unwrap_or(u64::MAX);
        let read_up_to = if drained { WallClock::boot_now() } else { self.last_timestamp };
        let is_over = |(key, at): &&(ContainerKey, u64)| {
            !self.waiting.contains_key(key) && at.saturating_add(disorder) < read_up_to
        };
        let over: Vec<ContainerKey> = ended.iter().filter(is_over).map(|(key, _)| *key).collect();
        if over.is_empty() {
            return;
        }
        for key in &over {
            self.given_up.remove(key);
            if let Some(known) = self.known.get_mut(key.slot() as usize)
                && known.as_ref().is_some_and(|(known, _)| known == key)
            {
                *known = None;
            }
        }
        self.registry.forget(&over);
    }
}
