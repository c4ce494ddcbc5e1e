//! Events whose containers are not known yet.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tracer_common::container::ContainerKey;

/// How long events wait for their container's bundle to be read.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many events of one container wait.
const EVENTS_MAX: usize = 10_000;
/// How many bytes of records wait in all.
const BYTES_MAX: usize = 4 << 20;

/// The records of events that wait, by container, in order.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
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

impl Waiting {
    pub(crate) fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }

    pub(crate) fn contains(&self, key: ContainerKey) -> bool {
        self.containers.contains_key(&key)
    }

    /// The containers that are waited for.
    pub(crate) fn keys(&self) -> Vec<ContainerKey> {
        self.containers.keys().copied().collect()
    }

    /// Whether a container has been waited for long enough.
    pub(crate) fn is_overdue(&self, key: ContainerKey, now: Instant) -> bool {
        self.containers.get(&key).is_some_and(|records| now.duration_since(records.since) >= PATIENCE)
    }

    /// Has a record wait. Returns the container that is to be given up because too much waits: this one, or the one of
    /// which the most does.
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

    /// What waits for a container, which is waited for no longer.
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
    fn records_come_back_as_they_were_once() {
        let mut waiting = Waiting::default();
        for record in [&b"one"[..], b"", b"three"] {
            assert_eq!(waiting.push(FEW, record), None);
        }
        waiting.push(MANY, b"other");
        let records = waiting.take(FEW).unwrap();
        assert_eq!(records.iter().collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        assert!(waiting.take(FEW).is_none() && !waiting.contains(FEW) && waiting.contains(MANY));
    }

    #[test]
    fn as_many_events_of_a_container_wait_as_there_is_room_for() {
        let mut waiting = Waiting::default();
        for _ in 1..EVENTS_MAX {
            assert_eq!(waiting.push(MANY, b"x"), None);
        }
        assert_eq!(waiting.push(MANY, b"x"), Some(MANY));
        waiting.take(MANY);
        assert_eq!((waiting.bytes, waiting.is_empty()), (0, true));
    }

    #[test]
    fn who_has_the_most_gives_way_for_all_others() {
        let mut waiting = Waiting::default();
        let record = vec![0; 4096];
        waiting.push(FEW, &record);
        for _ in 1..BYTES_MAX / record.len() {
            assert_eq!(waiting.push(MANY, &record), None);
        }
        assert_eq!(waiting.push(FEW, &record), Some(MANY));
        waiting.take(MANY);
        assert_eq!(waiting.bytes, 2 * record.len());
        assert_eq!(waiting.push(FEW, &record), None);
    }

    #[test]
    fn patience_counts_from_the_first_event() {
        let mut waiting = Waiting::default();
        waiting.push(FEW, b"first");
        let since = waiting.containers[&FEW].since;
        waiting.push(FEW, b"second");
        assert!(!waiting.is_overdue(FEW, since + PATIENCE.saturating_sub(Duration::from_nanos(1))));
        assert!(waiting.is_overdue(FEW, since + PATIENCE));
        assert!(!waiting.is_overdue(MANY, since + PATIENCE));
    }
}
