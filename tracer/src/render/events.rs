//! Rows of events: what they hold, and their columns.

use std::io::Write as _;

use super::{
    Layout, Table,
    columns::{Column, Columns, Rows},
    format_timestamp, json,
};
use crate::{
    containers::Container,
    trace::{Event, Tracer},
};

/// The kind of rows that are events.
#[derive(Clone, Copy, Debug)]
pub enum Events {}

/// An event with all that is shown of it.
#[derive(Debug)]
pub struct Row<'a> {
    /// Nanoseconds since 1970.
    pub timestamp: i128,
    /// The node's name.
    pub node: &'a str,
    /// The kind's name.
    pub kind: &'static str,
    /// The event.
    pub event: &'a Event<'a>,
    /// Its container; none for host processes.
    pub container: Option<&'a Container>,
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

const TIMESTAMP: Column =
    Column::new("TIMESTAMP", 30, |row, out| out.write_all(format_timestamp(row.timestamp).as_bytes()));
const PID: Column = Column::new("PID", 7, |row, out| write!(out, "{}", row.event.header.pid));
const TID: Column = Column::new("TID", 7, |row, out| write!(out, "{}", row.event.header.tid));
const PPID: Column = Column::new("PPID", 7, |row, out| write!(out, "{}", row.event.header.ppid));
const CONTAINER_PID: Column =
    Column::new("CONTAINERPID", 12, |row, out| write!(out, "{}", row.event.header.container_pid));
const UID: Column = Column::new("UID", 5, |row, out| write!(out, "{}", row.event.header.uid));
const GID: Column = Column::new("GID", 5, |row, out| write!(out, "{}", row.event.header.gid));
const COMM: Column = Column::new("COMM", 15, |row, out| out.write_all(row.event.comm()));

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
    pub fn new(
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
