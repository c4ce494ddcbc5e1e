//! Batches: what a node has sent, decoded and on its way to the writer.

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OwnedSemaphorePermit;

use crate::{
    frames::Listed,
    kinds::Kinds,
    model::Container,
    output::{ContainerTexts, Lost},
};

/// Items of one node, in the order in which it sent them.
#[derive(Debug)]
pub(super) struct Batch {
    /// The name of the agent's node. The name that the node itself sends is ignored.
    pub(super) node: Arc<str>,
    /// The kinds of its events, as the node declares them.
    pub(super) kinds: Option<Arc<Kinds>>,
    /// The records of its events, one after another.
    pub(super) records: Vec<u8>,
    /// Where in `records` each ends.
    pub(super) ends: Vec<usize>,
    pub(super) items: Vec<Item>,
    /// Bytes of the containers that the items refer to or are.
    pub(super) referenced_bytes: usize,
    /// Reserves capacity until the batch has been written.
    pub(super) _permit: Option<OwnedSemaphorePermit>,
}

/// Events, a container or a report of lost events.
#[derive(Debug)]
pub(super) enum Item {
    /// Consecutive events of one container, or of host processes.
    Events {
        container: Option<Arc<NodeContainer>>,
        /// Positions in [`Batch::ends`].
        records: Range<usize>,
    },
    Container(Box<Listed>),
    Lost {
        /// When, in nanoseconds since 1970, if the node reports it.
        timestamp: Option<i128>,
        lost: Lost,
    },
}

/// A container of a node, with its texts in rows.
#[derive(Debug)]
pub(super) struct NodeContainer {
    pub(super) container: Container,
    /// Used by the writer alone.
    pub(super) texts: Mutex<ContainerTexts>,
}

impl NodeContainer {
    pub(super) fn texts(&self) -> MutexGuard<'_, ContainerTexts> {
        // A panic while the lock was held would have ended the process.
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batch {
    /// The containers of its events, some of them several times.
    pub(super) fn containers(&self) -> impl Iterator<Item = &NodeContainer> {
        self.items.iter().filter_map(|item| match item {
            Item::Events { container, .. } => container.as_deref(),
            Item::Container(_) | Item::Lost { .. } => None,
        })
    }

    pub(super) const fn new(node: Arc<str>) -> Self {
        Self {
            node,
            kinds: None,
            records: Vec::new(),
            ends: Vec::new(),
            items: Vec::new(),
            referenced_bytes: 0,
            _permit: None,
        }
    }

    /// Bytes of memory that it needs, about.
    pub(super) fn size(&self) -> usize {
        self.records.len()
            + size_of_val(&self.ends[..])
            + size_of_val(&self.items[..])
            + self.referenced_bytes
    }

    /// The number of events or containers.
    pub(super) fn shown(&self) -> u64 {
        let count = |item: &Item| match item {
            Item::Events { records, .. } => records.len() as u64,
            Item::Container(_) => 1,
            Item::Lost { .. } => 0,
        };
        self.items.iter().map(count).sum()
    }

    /// Appends an event of a container, which has so many bytes.
    pub(super) fn push_event(&mut self, container: Option<(&Arc<NodeContainer>, usize)>, record: &[u8]) {
        self.records.extend_from_slice(record);
        let position = self.ends.len();
        self.ends.push(self.records.len());
        if let Some(Item::Events { container: last, records }) = self.items.last_mut()
            && last.as_ref().map(Arc::as_ptr) == container.map(|(container, _)| Arc::as_ptr(container))
        {
            records.end = position + 1;
            return;
        }
        self.referenced_bytes += container.map_or(0, |(_, bytes)| bytes);
        let container = container.map(|(container, _)| Arc::clone(container));
        self.items.push(Item::Events { container, records: position..position + 1 });
    }

    /// The record at a position.
    pub(super) fn record(&self, position: usize) -> &[u8] {
        let start = position.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.ends.get(position).and_then(|end| self.records.get(start..*end)).unwrap_or_default()
    }
}
