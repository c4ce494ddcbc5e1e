//! Rows of events: what they hold, and their columns.

use std::{
    io::{self, Write as _},
    sync::Arc,
};

use serde::{Serialize, Serializer};
use serde_yaml_ng::Value as DocumentValue;
use tracer_common::{Comm, comm_bytes, kinds::Header};

use crate::{
    kinds::{Cell, Event, Hex, Kind, Kinds, write_number},
    model::Container,
    output::{
        Document, EventTable, Format, JsonLines, Layout, Lost, Table,
        columns::{Column, ColumnNames, Columns, DETAILS, Rows},
        json,
        look::{Look, Mark},
        timestamp::{format_timestamp, write_time},
    },
    text_cache::Key,
};

/// The type of rows that are events.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Events {}

/// An event with all that is shown of it.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    /// Nanoseconds since 1970.
    pub(crate) timestamp: i128,
    /// The node's name.
    pub(crate) node: &'a str,
    /// The event.
    pub(crate) event: &'a Event<'a>,
    /// Its container; none for host processes.
    pub(crate) container: Option<&'a Container>,
}

impl Rows for Events {
    type Row<'a> = Row<'a>;

    fn node<'r>(row: &'r Row<'_>) -> &'r str {
        row.node
    }

    fn container<'r>(row: &'r Row<'_>) -> Option<&'r Container> {
        row.container
    }

    fn write_cell_of_kind(row: &Row<'_>, cells: &[Option<usize>], out: &mut Vec<u8>) -> io::Result<()> {
        let kind = row.event.kind;
        match cells.get(kind.index).copied().flatten() {
            Some(cell) => kind.write_cell(cell, row.event, out),
            None => Ok(()),
        }
    }
}

/// The process in the header of an event.
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
    serializer.serialize_str(&String::from_utf8_lossy(comm_bytes(comm)))
}

fn comm_hex<S: Serializer>(comm: &Comm, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Hex(comm_bytes(comm)))
}

/// Whether a comm is UTF-8. One that the kernel has cut off may end within a character.
fn is_text(comm: &Comm) -> bool {
    std::str::from_utf8(comm_bytes(comm)).is_ok()
}

/// The texts of one container in rows: made for its first row, copied into all others. They belong to one renderer and to what
/// is known of the container.
#[derive(Debug, Default)]
pub(crate) struct ContainerTexts {
    texts: Vec<Box<[u8]>>,
    /// The layout that they were written for.
    layout: u32,
}

impl ContainerTexts {
    /// Whether none was written yet.
    pub(crate) const fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Drops texts that were written for another layout.
    pub(crate) fn of_layout(&mut self, layout: u32) {
        if self.layout != layout {
            self.texts.clear();
            self.layout = layout;
        }
    }

    /// Calls `first` for the first event of the container only, until it succeeds.
    pub(crate) fn once(&mut self, first: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if self.texts.is_empty() {
            first()?;
            self.texts.push(Box::default());
        }
        Ok(())
    }

    /// Appends the text at `index`, which `write` writes the first time. Indices are used in their order.
    pub(crate) fn append(
        &mut self,
        index: usize,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        if let Some(text) = self.texts.get(index) {
            out.extend_from_slice(text);
            return Ok(());
        }
        let start = out.len();
        write(out)?;
        self.texts.push(out[start..].into());
        Ok(())
    }
}

/// Writes many events in one format.
#[derive(Debug)]
pub(crate) enum EventRenderer {
    /// In columns.
    Table(EventTable),
    /// One JSON object a line.
    Json(JsonLines),
    /// Another format for programs: the JSON line, converted.
    Document {
        /// The format.
        document: Document,
        /// Writes the JSON.
        lines: JsonLines,
        /// The JSON of an event.
        json: Vec<u8>,
    },
}

impl EventRenderer {
    /// In this format.
    pub(crate) fn new(format: &Format, kinds: &Arc<Kinds>, node: &str, look: Look) -> Result<Self, String> {
        let lines = || JsonLines::new(kinds);
        Ok(match format {
            Format::Table(layout) => Self::Table(EventTable::new(Table::new(layout, kinds, node, look)?)),
            Format::Document(Document::Json) => Self::Json(lines()),
            Format::Document(document) => {
                Self::Document { document: *document, lines: lines(), json: Vec::new() }
            }
        })
    }

    /// Appends the heading. On a terminal it comes before the first row, when it is known how wide columns have to be.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        if let Self::Table(table) = self {
            table.begin(out);
        }
    }

    /// See [`Table::resize`].
    pub(crate) fn resize(&mut self, width: impl FnOnce() -> Option<usize>) {
        if let Self::Table(table) = self {
            table.resize(width);
        }
    }

    /// Rows of this container follow.
    pub(crate) fn expect(&mut self, node: &str, container: Option<&Container>) -> io::Result<()> {
        match self {
            Self::Table(table) => table.expect(node, container),
            Self::Json(_) | Self::Document { .. } => Ok(()),
        }
    }

    /// Appends an event. `texts` are the container's; they were empty when its first event was shown.
    pub(crate) fn row(
        &mut self,
        row: &Row<'_>,
        texts: &mut ContainerTexts,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        match self {
            Self::Table(table) => table.row(row, texts, out),
            Self::Json(lines) => lines.row(row, texts, out),
            Self::Document { document, lines, json } => {
                json.clear();
                lines.row(row, texts, json)?;
                let value: DocumentValue = serde_json::from_slice(json)?;
                document.write(&value, out)
            }
        }
    }

    /// Appends a record of lost events; returns whether this format has one.
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
            Self::Document { document, .. } => *document,
        };
        document.write(&json::lost(timestamp, node, lost), out)?;
        Ok(true)
    }
}

const TIMESTAMP: Column =
    Column::new("TIMESTAMP", 30, |row, out| out.write_all(format_timestamp(row.timestamp).as_bytes()));
const TIME: Column = Column::new("TIME", 12, |row, out| {
    write_time(row.timestamp, out);
    Ok(())
});
const PID: Column = Column::of_process("PID", 7, |row, out| write_number(row.event.header.pid, out));
const TID: Column = Column::of_process("TID", 7, |row, out| write_number(row.event.header.tid, out));
const PPID: Column = Column::of_process("PPID", 7, |row, out| write_number(row.event.header.ppid, out));
const CONTAINER_PID: Column =
    Column::of_process("CONTAINERPID", 12, |row, out| write_number(row.event.header.container_pid, out));
const UID: Column = Column::of_process("UID", 5, |row, out| write_number(row.event.header.uid, out));
const GID: Column = Column::of_process("GID", 5, |row, out| write_number(row.event.header.gid, out));
const COMM: Column = Column::of_process("COMM", 15, |row, out| out.write_all(row.event.comm()));
/// Of several kinds: which one it is, and its own columns as `name=value`.
const EVENT: Column = Column::new("EVENT", 6, |row, out| out.write_all(row.event.kind.name().as_bytes()));
const OF_SEVERAL: Column = Column::new(DETAILS, 40, |row, out| row.event.kind.write_details(row.event, out));

/// The columns of `columns`, before the kind's own.
const NARROW: [Column; 6] = [Column::NODE, Column::NAMESPACE, Column::POD, Column::CONTAINER, PID, COMM];
/// The columns of `wide`, before the kind's own.
const WIDE: [Column; 14] = [
    TIME,
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
    /// A table for events of these kinds.
    pub(crate) fn new(layout: &Layout, kinds: &Kinds, node: &str, look: Look) -> Result<Self, String> {
        let mut table = Self::of_columns(layout, Columns::of_kinds(kinds, look.timestamps), node, look)?;
        if look.terminal.is_some() {
            table.narrow_containers();
        }
        Ok(table)
    }
}

impl Columns<Events> {
    /// The columns of events of these kinds.
    pub(super) fn of_kinds(kinds: &Kinds, timestamps: bool) -> Self {
        // Of a single kind its own columns; several kinds have their columns in one.
        let of_kind = |wide: bool| match kinds.single() {
            Some(kind) => columns_of(kinds, kind.columns().iter().filter(|cell| wide || !cell.wide)),
            None => vec![EVENT, OF_SEVERAL],
        };
        let (own, own_wide) = (of_kind(false), of_kind(true));
        // A kind may have a column of all kinds at a position of its own.
        let is_own = |column: &Column| own_wide.iter().any(|other| other.name() == column.name());
        let others: Vec<Column> = WIDE.into_iter().filter(|column| !is_own(column)).collect();
        let mut further = FURTHER.to_vec();
        for kind in kinds.iter() {
            for column in columns_of(kinds, kind.columns().iter().chain(kind.further_columns())) {
                let is_there = |known: &Column| known.name() == column.name();
                if !own_wide.iter().chain(&others).chain(&further).any(is_there) {
                    further.push(column);
                }
            }
        }
        let time = if timestamps { &[TIME][..] } else { &[] };
        Self { narrow: [time, &NARROW, &own].concat(), wide: [&others[..], &own_wide].concat(), further }
    }
}

/// The names of the columns of events of these kinds.
pub(crate) fn event_columns(kinds: &Kinds) -> ColumnNames {
    Columns::of_kinds(kinds, false).names()
}

/// The columns of these cells, of every kind that has them.
fn columns_of<'a>(kinds: &Kinds, cells: impl Iterator<Item = &'a Cell>) -> Vec<Column> {
    let of_kinds = |title: &str| kinds.iter().map(|kind: &Kind| kind.cell(title)).collect();
    cells
        .map(|Cell { title, width, alarm, .. }| match title.as_str() {
            "PPID" => PPID,
            _ => Column::of_kinds(title, *width, of_kinds(title)).marked(if *alarm {
                Mark::Alarm
            } else {
                Mark::None
            }),
        })
        .collect()
}
