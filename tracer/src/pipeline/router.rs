//! From records to the sink, each event with its container.

use std::time::{Duration, Instant};

use tracer_common::container::ContainerKey;

use crate::{
    kinds::Event,
    output::Kept,
    pipeline::{
        attribution_cache::{Knowledge, KnownContainers},
        pending::Waiting,
        sink::Sink,
    },
    sys::clock::WallClock,
};

/// Records come in the order in which they were reserved, give or take what runs on another CPU meanwhile.
const DISORDER: Duration = Duration::from_secs(1);

/// Attributes events and hands them on.
pub(crate) struct Router<K> {
    /// Where they go.
    pub(crate) sink: Sink,
    known: KnownContainers<K>,
    waiting: Waiting,
    /// What rows have of the host.
    host: Kept,
    /// Of the last event, in nanoseconds of `CLOCK_BOOTTIME`.
    last_timestamp: u64,
}

impl<K: Knowledge> Router<K> {
    /// Hands events on to `sink`, with what `knowledge` knows of their containers.
    pub(crate) fn new(knowledge: K, sink: Sink) -> Self {
        Self {
            sink,
            known: KnownContainers::new(knowledge),
            waiting: Waiting::default(),
            host: Kept::default(),
            last_timestamp: 0,
        }
    }

    /// Takes in what has been told of containers by now: what was submitted before an event is known before it is handled.
    pub(crate) fn learn(&mut self) {
        self.known.learn();
    }

    /// Whether events wait for their containers to become known.
    #[must_use]
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Handles a record. This is done for each event, and most take the first way out or the second.
    pub(crate) fn handle(&mut self, record: &[u8]) {
        let Some(event) = self.sink.accept(record) else { return };
        self.last_timestamp = event.header.timestamp;
        let key = event.header.container;
        if key == ContainerKey::HOST {
            // The programs let these through only where they are asked for.
            self.sink.show(&event, None, &mut self.host);
        } else if let Some(known) = self.known.at_hand(key) {
            known.deliver(&event, &mut self.sink);
        } else if self.waiting.contains(key) {
            self.wait(key, record);
        } else if let Some(known) = self.known.look_up(key) {
            known.deliver(&event, &mut self.sink);
        } else {
            self.wait(key, record);
        }
    }

    fn wait(&mut self, key: ContainerKey, record: &[u8]) {
        if let Some(key) = self.waiting.push(key, record) {
            self.deliver_waiting(key, true);
        }
    }

    /// Delivers the events of containers that have become known, and of those that were waited for too long.
    pub(crate) fn settle(&mut self, now: Instant) {
        for key in self.waiting.keys() {
            if self.known.look_up(key).is_some() {
                self.deliver_waiting(key, false);
            } else if self.waiting.is_overdue(key, now) {
                self.deliver_waiting(key, true);
            }
        }
    }

    /// Delivers events that have waited for a container: it is known, or given up. They were accepted when they came.
    fn deliver_waiting(&mut self, key: ContainerKey, give_up: bool) {
        let Self { sink, known, waiting, .. } = self;
        let known = if give_up { Some(known.give_up(key)) } else { known.look_up(key) };
        let (Some(known), Some(records)) = (known, waiting.take(key)) else { return };
        for record in records.iter() {
            if let Some(event) = Event::decode(sink.tracer(), record) {
                known.deliver(&event, sink);
            }
        }
    }

    /// Forgets those of the containers that had ended before the ring was read of which nothing can be in it any more: not
    /// even behind a record that was reserved but not submitted when the ring was read. Returns them.
    #[must_use]
    pub(crate) fn forget(&mut self, ended: &[(ContainerKey, u64)], drained: bool) -> Vec<ContainerKey> {
        let disorder = u64::try_from(DISORDER.as_nanos()).unwrap_or(u64::MAX);
        let read_up_to = if drained { WallClock::boot_now() } else { self.last_timestamp };
        let is_over = |(key, at): &&(ContainerKey, u64)| {
            !self.waiting.contains(*key) && at.saturating_add(disorder) < read_up_to
        };
        let over: Vec<ContainerKey> = ended.iter().filter(is_over).map(|(key, _)| *key).collect();
        for key in &over {
            self.known.forget(*key);
        }
        over
    }
}
