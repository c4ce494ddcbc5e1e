//! Events as text: columns for people, JSON and YAML for programs. Knows nothing of where the text goes.

mod columns;
mod json;
mod sanitize;
mod text;

use std::fmt::Write as _;

use serde::Serialize;

pub use columns::{Column, Layout, Table};
pub use text::{Hex, Text};

use crate::{containers::Container, trace::Event};

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

/// Events that were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// How many.
    pub count: u64,
    /// `buffer-full`, `program-skipped`, `unattributed`, `malformed`, `output`.
    pub reason: &'static str,
    /// The hook that they were lost at.
    pub hook: &'static str,
}

/// A way of showing events.
#[derive(Debug)]
pub enum Renderer {
    /// In columns.
    Table(Table),
    /// One JSON object a line.
    Json,
    /// JSON over many lines.
    JsonPretty,
    /// YAML documents.
    Yaml,
}

impl Renderer {
    /// What stands before the first event.
    pub fn begin(&self, out: &mut Vec<u8>) {
        if let Self::Table(table) = self {
            table.write_header(out);
        }
    }

    /// Appends an event.
    pub fn event(&mut self, row: &Row<'_>, out: &mut Vec<u8>) -> std::io::Result<()> {
        match self {
            Self::Table(table) => table.write_row(row, out),
            Self::Json => json::write(&json::event(row), out),
            Self::JsonPretty => json::write_pretty(&json::event(row), out),
            Self::Yaml => json::write_yaml(&json::event(row), out),
        }
    }

    /// Appends a record of lost events; returns whether this way of showing has one.
    pub fn lost(
        &mut self,
        timestamp: i128,
        node: &str,
        lost: &Lost,
        out: &mut Vec<u8>,
    ) -> std::io::Result<bool> {
        let line = json::lost(timestamp, node, lost);
        match self {
            Self::Table(_) => return Ok(false),
            Self::Json => json::write(&line, out)?,
            Self::JsonPretty => json::write_pretty(&line, out)?,
            Self::Yaml => json::write_yaml(&line, out)?,
        }
        Ok(true)
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
