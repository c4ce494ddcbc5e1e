//! Rows of events: what they hold, and their columns.

use std::io::{self, Write as _};

use serde::{Serialize, Serializer};
use tracer_common::{Comm, comm_bytes, event::Header};

use crate::{
    kinds::{Event, Tracer},
    model::Container,
    output::{
        Document, EventTable, Format, Hex, JsonLines, Layout, Lost, Table, Text,
        columns::{Column, Columns, Rows},
        json,
        text_cache::Key,
        timestamp::format_timestamp,
        write_number,
    },
};

/// The kind of rows that are events.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Events {}

/// An event with all that is shown of it.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    /// Nanoseconds since 1970.
    pub(crate) timestamp: i128,
    /// The node's name.
    pub(crate) node: &'a str,
    /// The kind's name.
    pub(crate) kind: &'static str,
    /// The event.
    pub(crate) event: &'a Event<'a>,
    /// Its container; none for host processes.
    pub(crate) container: Option<&'a Container>,
}

impl Rows for Events {
    type Row<'a> = Row<'a>;
    type Line<'r> = json::EventLine<'r>;

    fn node<'r>(row: &'r Row<'_>) -> &'r str {
        row.node
    }

    fn container<'r>(row: &'r Row<'_>) -> Option<&'r Container> {
        row.container
    }

    fn line<'r>(row: &'r Row<'_>) -> json::EventLine<'r> {
        json::event(row)
    }
}

/// The process that an event is of, as its header has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Process {
    pid: u32,
    tid: u32,
    ppid: u32,
    container_pid: u32,
    uid: u32,
    gid: u32,
    #[serde(serialize_with = "comm_text")]
    comm: Comm,
    #[serde(serialize_with = "comm_hex", skip_serializing_if = "is_text")]
    comm_hex: Comm,
}

impl Process {
    pub(crate) const fn of(header: &Header) -> Self {
        let Header { pid, tid, ppid, container_pid, uid, gid, comm, .. } = *header;
        Self { pid, tid, ppid, container_pid, uid, gid, comm, comm_hex: comm }
    }
}

impl Key for Process {
    fn number(&self) -> u64 {
        self.tid.into()
    }
}

fn comm_text<S: Serializer>(comm: &Comm, serializer: S) -> Result<S::Ok, S::Error> {
    Text(comm_bytes(comm)).serialize(serializer)
}

fn comm_hex<S: Serializer>(comm: &Comm, serializer: S) -> Result<S::Ok, S::Error> {
    Hex(comm_bytes(comm)).serialize(serializer)
}

/// Whether a comm is UTF-8. One that the kernel has cut off may end within a character.
fn is_text(comm: &Comm) -> bool {
    Hex(comm_bytes(comm)).is_of_text()
}

/// What rows have of one container, as they are written: made for its first row, copied into all others. It goes with
/// one renderer and with what is known of the container.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) texts: Vec<Box<[u8]>>,
}

/// A way of showing events, many of them.
#[derive(Debug)]
pub(crate) enum EventRenderer {
    /// In columns.
    Table(EventTable),
    /// One JSON object a line.
    Json(JsonLines),
    /// Other forms for programs.
    Document(Document),
}

impl EventRenderer {
    /// In this format. `terminal` is the width of the terminal that it is shown on, if one.
    pub(crate) fn new(
        format: &Format,
        tracer: &dyn Tracer,
        node: &str,
        terminal: Option<usize>,
        header: bool,
    ) -> Result<Self, String> {
        Ok(match format {
            Format::Table(layout) => {
                Self::Table(EventTable::new(Table::new(layout, tracer, node, terminal, header)?))
            }
            Format::Document(Document::Json) => Self::Json(JsonLines::new()),
            Format::Document(document) => Self::Document(*document),
        })
    }

    /// What stands before the first event.
    pub(crate) fn begin(&self, out: &mut Vec<u8>) {
        if let Self::Table(table) = self {
            table.write_header(out);
        }
    }

    /// Appends an event. `kept` is the container's; it was empty when its first event was shown.
    pub(crate) fn row(&mut self, row: &Row<'_>, kept: &mut Kept, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Table(table) => table.row(row, kept, out),
            Self::Json(lines) => lines.row(row, kept, out),
            Self::Document(document) => document.write(&Events::line(row), out),
        }
    }

    /// Appends a record of lost events; returns whether this way of showing has one.
    pub(crate) fn lost(
        &mut self,
        timestamp: i128,
        node: &str,
        lost: &Lost,
        out: &mut Vec<u8>,
    ) -> io::Result<bool> {
        let document = match self {
            Self::Table(_) => return Ok(false),
            Self::Json(_) => Document::Json,
            Self::Document(document) => *document,
        };
        document.write(&json::lost(timestamp, node, lost), out)?;
        Ok(true)
    }
}

const TIMESTAMP: Column =
    Column::new("TIMESTAMP", 30, |row, out| out.write_all(format_timestamp(row.timestamp).as_bytes()));
const PID: Column = Column::of_process("PID", 7, |row, out| write_number(row.event.header.pid, out));
const TID: Column = Column::of_process("TID", 7, |row, out| write_number(row.event.header.tid, out));
const PPID: Column = Column::of_process("PPID", 7, |row, out| write_number(row.event.header.ppid, out));
const CONTAINER_PID: Column =
    Column::of_process("CONTAINERPID", 12, |row, out| write_number(row.event.header.container_pid, out));
const UID: Column = Column::of_process("UID", 5, |row, out| write_number(row.event.header.uid, out));
const GID: Column = Column::of_process("GID", 5, |row, out| write_number(row.event.header.gid, out));
const COMM: Column = Column::of_process("COMM", 15, |row, out| out.write_all(row.event.comm()));

/// The columns of `columns`, before the kind's own.
const NARROW: [Column; 6] = [Column::NODE, Column::NAMESPACE, Column::POD, Column::CONTAINER, PID, COMM];
/// The columns of `wide`, before the kind's own.
const WIDE: [Column; 13] = [
    Column::NODE,
    Column::NAMESPACE,
    Column::POD,
    Column::CONTAINER,
    Column::RUNTIME,
    Column::CONTAINER_ID,
    Column::IMAGE,
    Column::SOURCE,
    PID,
    PPID,
    UID,
    GID,
    COMM,
];
/// Columns that `custom-columns` has besides.
const FURTHER: [Column; 4] = [TIMESTAMP, TID, CONTAINER_PID, Column::TYPE];

impl Table {
    /// A table for events of a kind. `terminal` is the width of the terminal that it is shown on, if one.
    pub(crate) fn new(
        layout: &Layout,
        tracer: &dyn Tracer,
        node: &str,
        terminal: Option<usize>,
        header: bool,
    ) -> Result<Self, String> {
        let own = tracer.columns();
        // A kind may have a column of all kinds in a place of its own.
        let others = WIDE.iter().filter(|column| !own.iter().any(|other| other.name() == column.name()));
        let all = Columns {
            narrow: [&NARROW, own].concat(),
            wide: others.chain(own).copied().collect(),
            further: FURTHER.to_vec(),
        };
        Self::of_columns(layout, all, node, terminal, header)
    }
}
