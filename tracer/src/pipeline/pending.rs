//! Events that are kept back until their container is known.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tracer_common::container::ContainerKey;

/// How long events are kept back while their container's bundle is read.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How many events of one container are kept back.
const EVENTS_MAX: usize = 10_000;
/// How many bytes of records are kept back in all.
const BYTES_MAX: usize = 4 << 20;

/// The records of these events, by container, in order.
#[derive(Debug, Default)]
pub(crate) struct PendingEvents {
    containers: HashMap<ContainerKey, Records>,
    /// Of all records.
    bytes: usize,
}

/// Records one after another.
#[derive(Debug)]
pub(crate) struct Records {
    /// When the first one came.
    since: Instant,
    bytes: Vec<u8>,
    /// Where in `bytes` each ends.
    ends: Vec<usize>,
}

impl Records {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}

impl PendingEvents {
    pub(crate) fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }

    pub(crate) fn contains(&self, key: ContainerKey) -> bool {
        self.containers.contains_key(&key)
    }

    /// The containers that events are kept back for.
    pub(crate) fn keys(&self) -> Vec<ContainerKey> {
        self.containers.keys().copied().collect()
    }

    /// Whether events have been kept back for a container for too long.
    pub(crate) fn is_overdue(&self, key: ContainerKey, now: Instant) -> bool {
        self.containers.get(&key).is_some_and(|records| now.duration_since(records.since) >= TIMEOUT)
    }

    /// Keeps a record back. Returns the container that is to be given up because too much is kept back: this one, or the one
    /// with the most.
    pub(crate) fn push(&mut self, key: ContainerKey, record: &[u8]) -> Option<ContainerKey> {
        let new = || Records { since: Instant::now(), bytes: Vec::new(), ends: Vec::new() };
        let records = self.containers.entry(key).or_insert_with(new);
        records.bytes.extend_from_slice(record);
        records.ends.push(records.bytes.len());
        self.bytes += record.len();
        if records.ends.len() >= EVENTS_MAX {
            return Some(key);
        }
        let largest = || self.containers.iter().max_by_key(|(_, records)| records.bytes.len());
        (self.bytes > BYTES_MAX).then(largest).flatten().map(|(key, _)| *key)
    }

    /// The records of a container, which are no longer kept back.
    pub(crate) fn take(&mut self, key: ContainerKey) -> Option<Records> {
        let records = self.containers.remove(&key)?;
        self.bytes -= records.bytes.len();
        Some(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: ContainerKey = ContainerKey::new(1, 1);
    const MANY: ContainerKey = ContainerKey::new(2, 1);

    #[test]
    fn records_come_back_unchanged_and_once() {
        let mut pending = PendingEvents::default();
        for record in [&b"one"[..], b"", b"three"] {
            assert_eq!(pending.push(FEW, record), None);
        }
        pending.push(MANY, b"other");
        let records = pending.take(FEW).unwrap();
        assert_eq!(records.iter().collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        assert!(pending.take(FEW).is_none() && !pending.contains(FEW) && pending.contains(MANY));
    }

    #[test]
    fn number_of_events_of_one_container_is_bounded() {
        let mut pending = PendingEvents::default();
        for _ in 1..EVENTS_MAX {
            assert_eq!(pending.push(MANY, b"x"), None);
        }
        assert_eq!(pending.push(MANY, b"x"), Some(MANY));
        pending.take(MANY);
        assert_eq!((pending.bytes, pending.is_empty()), (0, true));
    }

    #[test]
    fn container_with_the_most_bytes_is_given_up_first() {
        let mut pending = PendingEvents::default();
        let record = vec![0; 4096];
        pending.push(FEW, &record);
        for _ in 1..BYTES_MAX / record.len() {
            assert_eq!(pending.push(MANY, &record), None);
        }
        assert_eq!(pending.push(FEW, &record), Some(MANY));
        pending.take(MANY);
        assert_eq!(pending.bytes, 2 * record.len());
        assert_eq!(pending.push(FEW, &record), None);
    }

    #[test]
    fn timeout_counts_from_the_first_event() {
        let mut pending = PendingEvents::default();
        pending.push(FEW, b"first");
        let since = pending.containers[&FEW].since;
        pending.push(FEW, b"second");
        assert!(!pending.is_overdue(FEW, since + TIMEOUT.saturating_sub(Duration::from_nanos(1))));
        assert!(pending.is_overdue(FEW, since + TIMEOUT));
        assert!(!pending.is_overdue(MANY, since + TIMEOUT));
    }
}
