//! JSON and YAML. The contract of the field names is in docs/reference.md.

use std::io;

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::{Lost, Row, Text, format_timestamp, sanitize};
use crate::{
    containers::{Container, Pod},
    trace::Payload,
};

#[derive(Serialize)]
pub(super) struct EventLine<'a> {
    timestamp: String,
    event: &'static str,
    node: &'a str,
    k8s: Option<&'a Pod>,
    container: Option<&'a Container>,
    process: Process<'a>,
    #[serde(flatten)]
    payload: &'a Payload<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Process<'a> {
    pid: u32,
    tid: u32,
    ppid: u32,
    container_pid: u32,
    uid: u32,
    gid: u32,
    comm: Text<'a>,
}

#[derive(Serialize)]
pub(super) struct LostLine<'a> {
    timestamp: String,
    event: &'static str,
    node: &'a str,
    lost: &'a Lost,
}

pub(super) fn event<'a>(row: &'a Row<'a>) -> EventLine<'a> {
    let header = &row.event.header;
    EventLine {
        timestamp: format_timestamp(row.timestamp),
        event: row.kind,
        node: row.node,
        k8s: row.container.and_then(|container| container.pod.as_ref()),
        container: row.container,
        process: Process {
            pid: header.pid,
            tid: header.tid,
            ppid: header.ppid,
            container_pid: header.container_pid,
            uid: header.uid,
            gid: header.gid,
            comm: Text(row.event.comm()),
        },
        payload: &row.event.payload,
    }
}

pub(super) fn lost<'a>(timestamp: i128, node: &'a str, lost: &'a Lost) -> LostLine<'a> {
    LostLine { timestamp: format_timestamp(timestamp), event: "lost", node, lost }
}

pub(super) fn write(line: &impl Serialize, out: &mut Vec<u8>) -> io::Result<()> {
    let start = out.len();
    serde_json::to_writer(&mut *out, line)?;
    sanitize::escape_json(out, start);
    out.push(b'\n');
    Ok(())
}

pub(super) fn write_pretty(line: &impl Serialize, out: &mut Vec<u8>) -> io::Result<()> {
    let start = out.len();
    line.serialize(&mut Serializer::with_formatter(&mut *out, PrettyFormatter::new()))?;
    sanitize::escape_json(out, start);
    out.push(b'\n');
    Ok(())
}

/// One document for each, so that a stream that was cut off can be read up to there.
pub(super) fn write_yaml(line: &impl Serialize, out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(b"---\n");
    serde_yaml_ng::to_writer(&mut *out, line).map_err(io::Error::other)
}
