//! Events as lines of JSON, put together from parts that are written once for many lines. The contract of the field names is in
//! docs/json.md.

use std::{io, sync::Arc};

use serde::Serialize;

use crate::{
    kinds::{FieldCache, Kinds},
    model::{Container, Pod},
    output::{ContainerTexts, Row, events::Process, format::write_json, timestamp::Timestamps},
    text_cache::TextCache,
};

/// Writes events as lines of JSON.
#[derive(Debug)]
pub(crate) struct JsonLines {
    timestamps: Timestamps,
    processes: TextCache<Process>,
    fields: Vec<FieldCache>,
}

/// The part of a line that depends on the node and the container.
#[derive(Serialize)]
struct ContainerPart<'a> {
    node: &'a str,
    k8s: Option<&'a Pod>,
    container: Option<&'a Container>,
}

impl JsonLines {
    pub(crate) fn new(kinds: &Arc<Kinds>) -> Self {
        Self { timestamps: Timestamps::new(), processes: TextCache::new(), fields: kinds.field_caches() }
    }

    /// Appends an event's line.
    pub(crate) fn row(
        &mut self,
        row: &Row<'_>,
        texts: &mut ContainerTexts,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let name = row.event.kind.name().as_bytes();
        out.extend_from_slice(br#"{"timestamp":""#);
        self.timestamps.append(row.timestamp, out);
        out.extend_from_slice(br#"","event":""#);
        out.extend_from_slice(name);
        texts.append(0, out, |out| write_container(row, out))?;
        let process = Process::of(&row.event.header);
        self.processes.append(process, out, |out| {
            out.extend_from_slice(br#","process":"#);
            write_json(&process, out)
        })?;
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name);
        out.extend_from_slice(b"\":");
        row.event.kind.write_json(row.event, &mut self.fields, out)?;
        out.extend_from_slice(b"}\n");
        Ok(())
    }
}

/// Appends what follows the kind's name, up to the process.
fn write_container(row: &Row<'_>, out: &mut Vec<u8>) -> io::Result<()> {
    let k8s = row.container.and_then(|container| container.pod.as_ref());
    let part = ContainerPart { node: row.node, k8s, container: row.container };
    out.push(b'"');
    let start = out.len();
    write_json(&part, out)?;
    // The object's fields continue the line's.
    out[start] = b',';
    out.pop();
    Ok(())
}
