//! Events and containers as text: columns for people, JSON and YAML for programs. Knows nothing of where the text goes.

mod age;
mod columns;
mod containers;
mod events;
mod format;
mod json;
mod sanitize;
mod shared;
mod text;

use std::{fmt::Write as _, io};

use serde::Serialize;

pub use columns::{Column, Layout, Rows, Table};
pub use containers::{ContainerEvent, ContainerRenderer, ContainerRow, Containers};
pub use events::{Events, Row};
pub use format::{Document, Format};
pub(crate) use sanitize::line;
pub use text::{Hex, Text};

/// What was lost: events, or what tells whose they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// How many.
    pub count: u64,
    /// Of events `buffer-full`, `program-skipped`, `unattributed`, `malformed`, `output`; of what becomes of containers
    /// `lifecycle-full`, `process-map-full`, `slots-full`, `lifecycle-crowded`, `program-skipped`.
    pub reason: &'static str,
    /// The hook that they were lost at: the traced kind's name, or `lifecycle`.
    pub hook: &'static str,
}

/// A way of showing rows of a kind.
#[derive(Debug)]
pub enum Renderer<K: Rows = Events> {
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

impl Renderer {
    /// Appends a record of lost events; returns whether this way of showing has one.
    pub fn lost(&mut self, timestamp: i128, node: &str, lost: &Lost, out: &mut Vec<u8>) -> io::Result<bool> {
        match self {
            Self::Table(_) => Ok(false),
            Self::Document(document) => {
                document.write(&json::lost(timestamp, node, lost), out)?;
                Ok(true)
            }
        }
    }
}

/// RFC 3339 in UTC, to the nanosecond.
fn format_timestamp(nanoseconds: i128) -> String {
    let mut text = String::with_capacity(30);
    if let Ok(timestamp) = jiff::Timestamp::from_nanosecond(nanoseconds) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{timestamp:.9}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_have_nine_digits_always() {
        assert_eq!(format_timestamp(1_700_000_000_000_000_000), "2023-11-14T22:13:20.000000000Z");
        assert_eq!(format_timestamp(1_700_000_000_123_456_789), "2023-11-14T22:13:20.123456789Z");
    }
}
