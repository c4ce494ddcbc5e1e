//! Events and containers as text: columns for people, JSON and YAML for programs. Knows nothing of where the text goes.

mod age;
mod columns;
mod containers;
mod event_table;
mod events;
mod format;
mod json;
mod json_lines;
pub(crate) mod kyaml;
mod memo;
#[cfg(test)]
mod same;
mod sanitize;
mod shared;
mod text;
mod timestamp;

use std::{borrow::Cow, io};

use serde::Serialize;

pub use columns::{Column, Layout, Rows, Table};
pub use containers::{ContainerEvent, ContainerRenderer, ContainerRow, Containers, ListOf};
pub use event_table::EventTable;
pub use events::{EventRenderer, Events, Kept, Row};
pub use format::{Document, Format};
pub(crate) use json_lines::Call;
pub use json_lines::JsonLines;
pub(crate) use memo::Memo;
pub(crate) use sanitize::{line, message};
pub use text::{Hex, Text};

/// What was lost: events, or what tells whose they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// How many.
    pub count: u64,
    /// Of events `buffer-full`, `program-skipped`, `unattributed`, `malformed`, `output`; of what becomes of containers
    /// `lifecycle-full`, `process-map-full`, `slots-full`, `lifecycle-crowded`, `program-skipped`.
    pub reason: Cow<'static, str>,
    /// The hook that they were lost at: the traced kind's name, or `lifecycle`.
    pub hook: Cow<'static, str>,
}

/// A way of showing rows of a kind.
#[derive(Debug)]
pub enum Renderer<K: Rows> {
    /// In columns.
    Table(Table<K>),
    /// For programs.
    Document(Document),
}

impl<K: Rows> Renderer<K> {
    /// In this format; `table` makes the columns where it has some.
    pub fn new(
        format: &Format,
        table: impl FnOnce(&Layout) -> Result<Table<K>, String>,
    ) -> Result<Self, String> {
        match format {
            Format::Table(layout) => table(layout).map(Self::Table),
            Format::Document(document) => Ok(Self::Document(*document)),
        }
    }

    /// What stands before the first row.
    pub fn begin(&self, out: &mut Vec<u8>) {
        if let Self::Table(table) = self {
            table.write_header(out);
        }
    }

    /// Appends a row.
    pub fn row(&mut self, row: &K::Row<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Table(table) => table.write_row(row, out),
            Self::Document(document) => document.write(&K::line(row), out),
        }
    }
}

/// Appends a number in decimal.
#[expect(clippy::unnecessary_wraps, reason = "columns' values may fail")]
pub(crate) fn write_number(number: impl itoa::Integer, out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    Ok(())
}
