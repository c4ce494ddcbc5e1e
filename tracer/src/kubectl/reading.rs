//! What nodes print, read: events, or containers.

use std::{ops::Range, sync::Arc};

use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    containers::{Container, Pod},
    render::{ContainerEvent, Lost},
    trace::{
        Tracer,
        read::{About, Malformed, Reader, Told, nanoseconds},
    },
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

/// A container that a node lists.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) event: Option<ContainerEvent>,
    pub(super) container: Container,
    pub(super) pid: u32,
    /// In nanoseconds since 1970.
    pub(super) started: Option<i128>,
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
            Self::Containers => Item::Container(Box::new(listed(line)?)),
        });
        Ok(())
    }
}

/// A container as JSON has it (`render/containers.rs`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    event: Option<ContainerEvent>,
    k8s: Option<Pod>,
    container: Container,
    pid: Option<u32>,
    started_at: Option<&'a str>,
}

fn listed(line: &[u8]) -> Result<Listed, Malformed> {
    let Line { event, k8s, container, pid, started_at } = serde_json::from_slice(line)?;
    Ok(Listed {
        event,
        container: Container { pod: k8s, ..container },
        pid: pid.unwrap_or(0),
        started: started_at.map(nanoseconds).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        containers::{ContainerType, Isolation, Nested, Source, Unknown},
        render::{ContainerRenderer, ContainerRow, ListOf},
    };

    fn any_listed() -> impl Strategy<Value = Listed> {
        let labels = prop::collection::btree_map(any::<String>(), any::<String>(), 0..3);
        let pod =
            (any::<String>(), any::<String>(), any::<Option<String>>(), any::<Option<String>>(), labels);
        let container = (any::<String>(), any::<String>(), any::<Option<String>>(), any::<Option<String>>());
        let event =
            prop::option::of(prop::sample::select(vec![ContainerEvent::Added, ContainerEvent::Deleted]));
        let started = prop::option::of(0..1_900_000_000_000_000_000_i128);
        (prop::option::of(pod), container, event, any::<u32>(), started).prop_map(
            |(pod, (id, runtime, image, nested), event, pid, started)| {
                let nested = nested.map(|id| Nested { id, runtime: "crun".into() });
                let pod = pod.map(|(namespace, name, pod_uid, container, labels)| Pod {
                    namespace,
                    name,
                    pod_uid,
                    container,
                    labels: Some(labels),
                });
                let container = Container {
                    id,
                    runtime,
                    image,
                    kind: ContainerType::Sandbox,
                    source: Source::State,
                    isolation: nested.as_ref().map(|_| Isolation::Kata),
                    inner: nested,
                    pod,
                    ..Container::unknown(Unknown::Missed)
                };
                Listed { event, container, pid, started }
            },
        )
    }

    proptest! {
        #[test]
        fn containers_that_were_read_back_are_the_same(listed in any_listed(), watch: bool) {
            let Listed { event, container, pid, started } = &listed;
            let row = ContainerRow { node: "n", event: *event, container, pid: *pid, started: *started, now: 0 };
            let mut renderer = ContainerRenderer::new(ListOf::Node, "json", "n", true, None, watch).unwrap();
            let (mut out, mut batch) = (Vec::new(), Batch::new("n".into()));
            renderer.begin(&[row], &mut out).unwrap();
            Reading::Containers.read(out.trim_ascii_end(), &mut batch).unwrap();
            let Some(Item::Container(read)) = batch.items.pop() else { panic!() };
            prop_assert_eq!(*read, listed);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = listed(br#"{"node":"n","k8s":null,"pid":null,"startedAt":null}"#).unwrap_err();
        assert!(error.to_string().contains("`container`"), "{error}");
    }
}
