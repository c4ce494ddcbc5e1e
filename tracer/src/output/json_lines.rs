//! Events as lines of JSON, many of them: what [`EventLine`](crate::output::json::EventLine) says, put together from parts that
//! are written once for many lines.

use std::io;

use serde::Serialize;

use crate::{
    model::{Container, Pod},
    output::{
        Kept, Row,
        events::Process,
        format::write_json,
        text_cache::{Key, Memo},
        timestamp::Timestamps,
    },
};

/// Writes events as lines of JSON.
#[derive(Debug)]
pub(crate) struct JsonLines {
    timestamps: Timestamps,
    processes: Memo<Process>,
    calls: Memo<Call>,
}

/// Some of what a call was given, by which a kind may have the text that tells it kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call(pub(crate) [u64; 3]);

impl Key for Call {
    fn number(&self) -> u64 {
        let [first, second, third] = self.0;
        first ^ second.rotate_left(32) ^ third.rotate_left(16)
    }
}

/// What lines have of the node and the container.
#[derive(Serialize)]
struct ContainerPart<'a> {
    event: &'static str,
    node: &'a str,
    k8s: Option<&'a Pod>,
    container: Option<&'a Container>,
}

impl JsonLines {
    pub(crate) fn new() -> Self {
        Self { timestamps: Timestamps::new(), processes: Memo::new(), calls: Memo::new() }
    }

    /// Appends an event's line.
    pub(crate) fn row(&mut self, row: &Row<'_>, kept: &mut Kept, out: &mut Vec<u8>) -> io::Result<()> {
        out.extend_from_slice(br#"{"timestamp":""#);
        self.timestamps.append(row.timestamp, out);
        kept.append(0, out, |out| write_container(row, out))?;
        let process = Process::of(&row.event.header);
        self.processes.append(process, out, |out| {
            out.extend_from_slice(br#","process":"#);
            write_json(&process, out)
        })?;
        row.event.payload.write_json(&mut self.calls, out)?;
        out.extend_from_slice(b"}\n");
        Ok(())
    }
}

/// Appends what follows the timestamp's text, up to the process.
fn write_container(row: &Row<'_>, out: &mut Vec<u8>) -> io::Result<()> {
    let k8s = row.container.and_then(|container| container.pod.as_ref());
    let part = ContainerPart { event: row.kind, node: row.node, k8s, container: row.container };
    out.push(b'"');
    let start = out.len();
    write_json(&part, out)?;
    // The object's fields continue the line's.
    out[start] = b',';
    out.pop();
    Ok(())
}
