//! What nodes print, read: events, or containers.

use std::{ops::Range, sync::Arc};

use tokio::sync::OwnedSemaphorePermit;

use crate::{
    kinds::Tracer,
    output::Lost,
    read::{About, Listed, Malformed, Reader, Told},
};

/// How to read the lines of a node.
#[derive(Debug)]
pub(super) enum Reading {
    /// Each is an event, or tells of losses.
    Events(Reader),
    /// Each is a container.
    Containers,
}

/// What a node's lines tell, some of them at a time, in their order.
#[derive(Debug)]
pub(super) struct Batch {
    /// The node's name, by which its agent is known: what it calls itself does not matter.
    pub(super) node: Arc<str>,
    /// The records of its events.
    pub(super) records: Vec<u8>,
    pub(super) items: Vec<Item>,
    /// How long the lines were, in bytes.
    pub(super) bytes: usize,
    /// The room that it takes until it has been shown.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// What a line tells.
#[derive(Debug)]
pub(super) enum Item {
    /// An event.
    Event {
        /// Nanoseconds since 1970.
        timestamp: i128,
        about: Arc<About>,
        /// Where its record is.
        record: Range<usize>,
    },
    /// A container.
    Container(Box<Listed>),
    /// Events that were lost; when, in nanoseconds since 1970, if the node says so.
    Lost { timestamp: Option<i128>, lost: Lost },
}

impl Batch {
    pub(super) const fn new(node: Arc<str>) -> Self {
        Self { node, records: Vec::new(), items: Vec::new(), bytes: 0, room: None }
    }

    /// How many lines are in it that are to be shown.
    pub(super) fn shown(&self) -> u64 {
        self.items.iter().filter(|item| !matches!(item, Item::Lost { .. })).count() as u64
    }
}

impl Reading {
    /// Lines of `tracer trace`.
    pub(super) fn events(tracer: &'static dyn Tracer) -> Self {
        Self::Events(Reader::new(tracer))
    }

    /// Appends what a line tells.
    pub(super) fn read(&mut self, line: &[u8], batch: &mut Batch) -> Result<(), Malformed> {
        batch.bytes += line.len();
        batch.items.push(match self {
            Self::Events(reader) => {
                let start = batch.records.len();
                match reader.read(line, &mut batch.records)? {
                    Told::Event { timestamp, about } => {
                        Item::Event { timestamp, about, record: start..batch.records.len() }
                    }
                    Told::Lost { timestamp, lost } => Item::Lost { timestamp: Some(timestamp), lost },
                }
            }
            Self::Containers => Item::Container(Box::new(Listed::read(line)?)),
        });
        Ok(())
    }
}
