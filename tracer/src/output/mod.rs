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
#[cfg(test)]
mod same;
mod shared;
mod text;
mod text_cache;
mod timestamp;

use std::{borrow::Cow, io};

use serde::Serialize;

pub(crate) use columns::{Column, Layout, Rows, Table};
pub(crate) use containers::{ContainerEvent, ContainerRenderer, ContainerRow, Containers, ListOf};
pub(crate) use event_table::EventTable;
pub(crate) use events::{EventRenderer, Events, Kept, Row};
pub(crate) use format::{Document, Format};
pub(crate) use json_lines::{Call, JsonLines};
pub(crate) use text::{Hex, Text};
pub(crate) use text_cache::Memo;

/// What was lost: events, or what tells whose they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Lost {
    /// How many.
    pub(crate) count: u64,
    /// Of events `buffer-full`, `program-skipped`, `unattributed`, `malformed`, `output`; of what becomes of containers
    /// `lifecycle-full`, `process-map-full`, `slots-full`, `lifecycle-crowded`, `program-skipped`.
    pub(crate) reason: Cow<'static, str>,
    /// The hook that they were lost at: the traced kind's name, or `lifecycle`.
    pub(crate) hook: Cow<'static, str>,
}

/// A way of showing rows of a kind.
#[derive(Debug)]
pub(crate) enum Renderer<K: Rows> {
    /// In columns.
    Table(Table<K>),
    /// For programs.
    Document(Document),
}

impl<K: Rows> Renderer<K> {
    /// In this format; `table` makes the columns where it has some.
    pub(crate) fn new(
        format: &Format,
        table: impl FnOnce(&Layout) -> Result<Table<K>, String>,
    ) -> Result<Self, String> {
        match format {
            Format::Table(layout) => table(layout).map(Self::Table),
            Format::Document(document) => Ok(Self::Document(*document)),
        }
    }

    /// What stands before the first row.
    pub(crate) fn begin(&self, out: &mut Vec<u8>) {
        if let Self::Table(table) = self {
            table.write_header(out);
        }
    }

    /// Appends a row.
    pub(crate) fn row(&mut self, row: &K::Row<'_>, out: &mut Vec<u8>) -> io::Result<()> {
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
