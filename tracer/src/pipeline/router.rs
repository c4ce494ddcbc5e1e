//! From records to the sink, each event with its container.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracer_common::container::ContainerKey;

use crate::{
    kinds::{Event, Kinds},
    output::ContainerTexts,
    pipeline::{
        Sink,
        attribution_cache::{AttributionCache, Attributor},
        pending::PendingEvents,
    },
    sys::clock::WallClock,
};

/// Records come in the order in which they were reserved, give or take what runs on another CPU meanwhile.
const DISORDER: Duration = Duration::from_secs(1);

/// Attributes events and hands them to the sink.
pub struct Router<A> {
    /// Where they go.
    pub(crate) sink: Sink,
    kinds: Arc<Kinds>,
    attributions: AttributionCache<A>,
    pending: PendingEvents,
    /// Texts in rows of the host.
    host: ContainerTexts,
    /// Of the last event, in nanoseconds of `CLOCK_BOOTTIME`.
    last_timestamp: u64,
}

impl<A: Attributor> Router<A> {
    /// Hands events of these kinds to `sink`, attributed by `attributor`.
    pub(crate) fn new(kinds: Arc<Kinds>, attributor: A, sink: Sink) -> Self {
        Self {
            sink,
            kinds,
            attributions: AttributionCache::new(attributor),
            pending: PendingEvents::default(),
            host: ContainerTexts::default(),
            last_timestamp: 0,
        }
    }

    /// Takes in the lifecycle records that were submitted so far: a creation is known before its events are handled.
    pub fn update(&mut self) {
        self.attributions.update();
    }

    /// Whether events are kept back until their containers are known.
    #[must_use]
    pub fn is_keeping_back(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Handles a record. This is done for each event, and most take the first way out or the second.
    pub fn handle(&mut self, record: &[u8]) {
        let Self { sink, kinds, attributions, pending, host, last_timestamp } = self;
        let Some(event) = Event::decode(kinds, record) else { return sink.malformed() };
        if !sink.accepts(&event) {
            return;
        }
        *last_timestamp = event.header.timestamp;
        let key = event.header.container;
        if key == ContainerKey::HOST {
            // The programs let these through only if they are selected.
            sink.show(&event, record, None, host);
        } else if let Some(cached) = attributions.cached(key) {
            cached.deliver(&event, record, sink);
        } else if !pending.contains(key)
            && let Some(known) = attributions.look_up(key)
        {
            known.deliver(&event, record, sink);
        } else if let Some(key) = pending.push(key, record) {
            self.deliver_pending(key, true);
        }
    }

    /// Delivers the events of containers that have become known, and of those that were kept back for too long.
    pub fn settle(&mut self, now: Instant) {
        for key in self.pending.keys() {
            if self.attributions.look_up(key).is_some() {
                self.deliver_pending(key, false);
            } else if self.pending.is_overdue(key, now) {
                self.deliver_pending(key, true);
            }
        }
    }

    /// Delivers events that were kept back for a container: it is known, or given up. They were accepted when they came.
    fn deliver_pending(&mut self, key: ContainerKey, give_up: bool) {
        let Self { sink, kinds, attributions, pending, .. } = self;
        let known = if give_up { Some(attributions.give_up(key)) } else { attributions.look_up(key) };
        let (Some(known), Some(records)) = (known, pending.take(key)) else { return };
        for record in records.iter() {
            if let Some(event) = Event::decode(kinds, record) {
                known.deliver(&event, record, sink);
            }
        }
    }

    /// Forgets those of the containers that had ended before the ring was read of which nothing can be in it any more: not
    /// even behind a record that was reserved but not submitted when the ring was read. Returns them.
    #[must_use]
    pub fn forget(&mut self, ended: &[(ContainerKey, u64)], drained: bool) -> Vec<ContainerKey> {
        let disorder = u64::try_from(DISORDER.as_nanos()).unwrap_or(u64::MAX);
        let read_up_to = if drained { WallClock::boot_now() } else { self.last_timestamp };
        let is_over = |(key, at): &&(ContainerKey, u64)| {
            !self.pending.contains(*key) && at.saturating_add(disorder) < read_up_to
        };
        let over: Vec<ContainerKey> = ended.iter().filter(is_over).map(|(key, _)| *key).collect();
        for key in &over {
            self.attributions.forget(*key);
            self.sink.forget(*key);
        }
        over
    }
}
