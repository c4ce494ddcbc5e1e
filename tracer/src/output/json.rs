//! Events in JSON and YAML. The contract of the field names is in docs/reference.md.

use serde::Serialize;

use crate::{
    kinds::Payload,
    model::{Container, Pod},
    output::{Lost, Row, events::Process, timestamp::format_timestamp},
};

/// An event as JSON has it.
#[derive(Debug, Serialize)]
pub(crate) struct EventLine<'a> {
    timestamp: String,
    event: &'static str,
    node: &'a str,
    k8s: Option<&'a Pod>,
    container: Option<&'a Container>,
    process: Process,
    #[serde(flatten)]
    payload: &'a Payload<'a>,
}

#[derive(Serialize)]
pub(crate) struct LostLine<'a> {
    timestamp: String,
    event: &'static str,
    node: &'a str,
    lost: &'a Lost,
}

pub(crate) fn event<'a>(row: &'a Row<'a>) -> EventLine<'a> {
    EventLine {
        timestamp: format_timestamp(row.timestamp),
        event: row.kind,
        node: row.node,
        k8s: row.container.and_then(|container| container.pod.as_ref()),
        container: row.container,
        process: Process::of(&row.event.header),
        payload: &row.event.payload,
    }
}

pub(crate) fn lost<'a>(timestamp: i128, node: &'a str, lost: &'a Lost) -> LostLine<'a> {
    LostLine { timestamp: format_timestamp(timestamp), event: "lost", node, lost }
}
