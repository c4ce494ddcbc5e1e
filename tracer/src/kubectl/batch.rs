//! Batches: what a node has sent, decoded and on its way to the writer.

use std::{ops::Range, sync::Arc};

use tokio::sync::OwnedSemaphorePermit;

use crate::{
    output::Lost,
    read::{About, Listed},
};

/// Items of one node, in the order in which it sent them.
#[derive(Debug)]
pub(super) struct Batch {
    /// The name of the agent's node. The name that the node itself sends is ignored.
    pub(super) node: Arc<str>,
    /// The records of its events.
    pub(super) records: Vec<u8>,
    pub(super) items: Vec<Item>,
    /// Size of what was received, in bytes.
    pub(super) bytes: usize,
    /// Reserves capacity until the batch has been written.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// An event, a container or a report of lost events.
#[derive(Debug)]
pub(super) enum Item {
    Event {
        /// Nanoseconds since 1970.
        timestamp: i128,
        about: Arc<About>,
        /// Position of the event's record in [`Batch::records`].
        record: Range<usize>,
    },
    Container(Box<Listed>),
    Lost {
        /// When, in nanoseconds since 1970, if the node reports it.
        timestamp: Option<i128>,
        lost: Lost,
    },
}

impl Batch {
    pub(super) const fn new(node: Arc<str>) -> Self {
        Self { node, records: Vec::new(), items: Vec::new(), bytes: 0, permit: None }
    }

    /// The number of events or containers.
    pub(super) fn shown(&self) -> u64 {
        self.items.iter().filter(|item| !matches!(item, Item::Lost { .. })).count() as u64
    }
}
