//! From the event ring to the sink, each event with its container.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracer_common::container::ContainerKey;
use tracing::warn;

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
/// How often losses are reported while there are any.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Records come in the order in which they were reserved, give or take what runs on another CPU meanwhile.
const DISORDER: Duration = Duration::from_secs(1);

/// Attributes events and hands them on.
pub(super) struct Stream {
    ring: EventRing,
    bpf: Arc<Mutex<Bpf>>,
    router: Router,
    reported: HashMap<&'static str, u64>,
    /// Starts, processes and ends of containers that were missed, as far as that was told.
    missed: u64,
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
        Self { ring, bpf, router, reported: HashMap::new(), missed: 0 }
    }

    /// Handles events until the programs are detached and the ring is empty.
    pub(super) async fn run(mut self, mut phases: watch::Receiver<Phase>) -> anyhow::Result<()> {
        let mut changes = self.router.registry.changes();
        let mut waiter = self.ring.waiter()?;
        let mut report = tokio::time::interval(REPORT_INTERVAL);
        self.router.sink.flush();
        while *phases.borrow() == Phase::Running {
            tokio::select! {
                result = waiter.wait() => result?,
                // Only who waits for a container to become known has to look at once.
                _ = changes.changed(), if !self.router.waiting.is_empty() => {}
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
        let Self { ring, router, .. } = self;
        let mut total = 0;
        loop {
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
            router.sink.flush();
            if drained {
                return total;
            }
        }
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
                let Lookup::Known(attribution) = self.registry.look_up(key) else { return None };
                attribution
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
